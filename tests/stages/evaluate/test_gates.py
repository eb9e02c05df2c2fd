"""Gates pass and fail by what was measured, on figures made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.artifact import Artifact
from stages.evaluate.gates import Gate, all_gates
from stages.evaluate.heldout import TextCost
from stages.evaluate.measured import Measured, Tally, parent_of, role_of, win_rate


def model(role: str, parent: str = "", share: float | None = None, **more: Any) -> Measured:
    """A model whose problems pass in `share` of ten samples each, give or take one."""
    entry = Measured(role, f"id-{role}", role.split("_")[0], role, parent, **more)
    if share is not None:
        right = [round(10 * share) + (1 if i % 2 else -1) for i in range(40)]
        entry.tallies = {f"p{i}": Tally("arithmetic", 10, r) for i, r in enumerate(right)}
    return entry


def cost(bits_per_byte: float) -> TextCost:
    size = np.arange(50, 90)
    return TextCost(bits_per_byte * size.astype(float), size, size // 4)


def gates(*models: Measured, **more: Any) -> dict[str, Gate]:
    options = {"ngram": None, "reward_accuracy": None, "certificate": None, **more}
    return {gate.name: gate for gate in all_gates(models, seed=0, **options)}


def test_nothing_measured_gives_no_gate() -> None:
    assert gates(model("pretrain"), model("rlvr", "id-ppo")) == {}


@pytest.mark.parametrize(("ours", "passed"), [(1.5, True), (2.5, False)])
def test_base_against_ngram(ours: float, passed: bool) -> None:
    gate = gates(model("pretrain", text=cost(ours)), ngram=cost(2.0))["base_beats_ngram"]
    assert gate.passed is passed
    assert gate.found[0] == pytest.approx(2.0 - ours)


def test_reward_accuracy_needs_its_whole_interval() -> None:
    assert gates(reward_accuracy=[0.6, 0.51, 0.7])["reward_accuracy"].passed
    gate = gates(reward_accuracy=[0.6, 0.49, 0.7])["reward_accuracy"]
    assert not gate.passed and "the interval holds the threshold" in gate.sentence


@pytest.mark.parametrize(
    ("before", "after", "in_range", "gained"),
    [(0.3, 0.6, True, True), (0.3, 0.4, True, False), (0.7, 0.9, False, True)],
)
def test_rlvr(before: float, after: float, in_range: bool, gained: bool) -> None:
    found = gates(model("ppo", share=before), model("rlvr", "id-ppo", share=after))
    assert found["rlvr_parent_in_range"].passed is in_range
    assert found["rlvr_gain"].passed is gained
    assert found["rlvr_gain"].found == pytest.approx([after - before] * 3)


def test_rlvr_without_its_parent_measured_has_no_gate() -> None:
    assert gates(model("sft", share=0.3), model("rlvr", "id-ppo", share=0.9)) == {}


def test_distillation_is_compared_with_the_same_size_alone() -> None:
    taught, alone = model("distill", share=0.5), model("distill_alone", share=0.3)
    assert gates(taught, alone)["distill_beats_no_teacher"].passed
    taught, alone = model("distill", share=0.3), model("distill_alone", share=0.5)
    assert not gates(taught, alone)["distill_beats_no_teacher"].passed


@pytest.mark.parametrize(("bits", "passed"), [(2.001, True), (2.1, False)])
def test_quantized_loss(bits: float, passed: bool) -> None:
    found = gates(model("rlvr", text=cost(2.0)), model("quantize", "id-rlvr", text=cost(bits)))
    gate = found["quantized_loss"]
    assert gate.passed is passed
    wanted = cost(bits).perplexity() / cost(2.0).perplexity() - 1
    assert gate.found[0] == pytest.approx(wanted)


def test_wins_on_the_true_preference() -> None:
    sft = model("sft", preferences=[[0.0, 1.0]] * 20)
    better, worse = [[1.0, 2.0]] * 20, [[-1.0, 0.0]] * 20
    found = gates(sft, model("dpo", preferences=better), model("ppo", preferences=worse))
    assert found["dpo_wins_against_sft"].passed
    assert not found["ppo_wins_against_sft"].passed


def test_ties_count_half() -> None:
    assert win_rate([[1.0]] * 4, [[1.0]] * 4, 0) == [0.5, 0.5, 0.5]
    assert win_rate([[1.0, 3.0]], [[2.0, 1.0]], 0)[0] == pytest.approx((0 + 0.5 + 1 + 1) / 4)


def test_two_of_a_kind_get_names() -> None:
    one = model("pretrain", text=cost(1.0))
    two = model("pretrain", text=cost(3.0))
    two.name = "other"
    found = gates(one, two, ngram=cost(2.0))
    assert found["base_beats_ngram:pretrain"].passed
    assert not found["base_beats_ngram:other"].passed


def test_samples_without_a_verdict_are_left_out() -> None:
    entry = model("sft")
    entry.tallies = {"a": Tally("code", 2, 1, errors=2), "b": Tally("code", 0, 0, errors=4)}
    summary = entry.summary(0)
    assert entry.pass_at_1() == {"a": 0.5}
    assert (summary["samples"], summary["problems"], summary["verifier_errors"]) == (2, 1, 6)


def test_roles_are_told_by_lineage(as_artifact: Any, tmp_path: Any) -> None:
    def artifact(stage: str, **parents: list[str]) -> Artifact:
        made: Artifact = as_artifact(tmp_path, "checkpoint", stage, parents)
        return made

    assert role_of(artifact("sft", model=["base"])) == "sft"
    assert role_of(artifact("sft", model=["ppo"], compute_of=["rlvr"])) == "sft_continued"
    assert role_of(artifact("distill", teacher=["rlvr"], model=["base"])) == "distill"
    assert role_of(artifact("distill", model=["base"], compute_of=["d"])) == "distill_alone"
    assert parent_of(artifact("rlvr", model=["ppo"])) == "ppo"
    assert parent_of(artifact("pretrain", tokens=["t"])) == ""
