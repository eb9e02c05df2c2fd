"""sft, reward and dpo on one rank: they learn, their folders load, and a cut run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import UserError
from model import pretrained
from model.tokenizer import Tokenizer
from tests.stages.small import sums, write_examples, write_model


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory, one_rank: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("parents")
    model, examples = write_model(folder / "model"), write_examples(folder / "examples")
    return {"model": str(model), "examples": str(examples)}


def _train(stage: Any, parents: dict[str, str], scratch: Path, **fields: Any) -> dict[str, Any]:
    """Run a stage's worker; what it reported last."""
    budget = fields.pop("flops_budget", None)
    config = stage.Config.model_validate(
        {"model": "m", "examples": "e", "steps": 8, "batch_rows": 8, "sequence_length": 64,
         "learning_rate": 1e-2, "checkpoint_every": 4, "watch": {"hang_s": 300.0}, **fields}
    )  # fmt: skip
    said: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "report", lambda metrics, *_: said.append(metrics))
        stage.train(
            {"config": config.model_dump(mode="json"), **parents, "scratch": str(scratch),
             "seed": 3, "flops_budget": budget}
        )  # fmt: skip
    assert json.dumps(said[-1])
    return said[-1]


def _log(scratch: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (scratch / "log.jsonl").read_text().splitlines()]


def test_sft_learns_and_its_folder_loads(parents: dict[str, str], tmp_path: Path) -> None:
    from stages.align import sft_run

    metrics = _train(sft_run, parents, tmp_path, steps=20)
    model = pretrained.load(tmp_path / "model")
    start = pretrained.load(parents["model"])
    tokenizer = Tokenizer.load(tmp_path / "model")

    def heldout_loss(network: Any) -> float:
        total, count = 0.0, 0
        for row in sums(16, 2):  # the assistant's tokens only, one row at a time, no padding
            ids, mask = tokenizer.encode_chat(row["messages"])
            with torch.no_grad():
                logprobs = network(torch.tensor([ids]))[0].double().log_softmax(-1)
            for at in range(1, len(ids)):
                if mask[at]:
                    total -= logprobs[at - 1, ids[at]].item()
                    count += 1
        return total / count

    assert metrics["heldout_loss"] == pytest.approx(heldout_loss(model), abs=0.02)
    assert heldout_loss(model) < heldout_loss(start) - 1
    assert metrics["flops"] == 6 * metrics["parameters"] * metrics["tokens"]


def test_passes_of_like_lengths_share_a_step_with_less_padding(
    parents: dict[str, str], tmp_path: Path
) -> None:
    """The same rows a step, in one pass or four: the same losses, from fewer tokens."""
    from stages.align import sft_run

    fields: dict[str, Any] = {"precision": "float32"}
    one = _train(sft_run, parents, tmp_path / "one", **fields, parallel={"rows": 8})
    four = _train(sft_run, parents, tmp_path / "four", **fields, parallel={"rows": 2})
    losses = [[line["loss"] for line in _log(tmp_path / name)] for name in ("one", "four")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert four["tokens"] < one["tokens"]


def test_sft_stops_at_another_stages_compute(parents: dict[str, str], tmp_path: Path) -> None:
    from stages.align import sft_run

    full = _train(sft_run, parents, tmp_path / "full")
    half = _train(sft_run, parents, tmp_path / "half", steps=99, flops_budget=full["flops"] / 2)
    assert half["flops"] == pytest.approx(full["flops"] / 2, rel=0.15)


def test_a_cut_sft_run_ends_as_an_undisturbed_one(
    parents: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.align import sft_run
    from stages.tune import trl_worker

    monkeypatch.setattr(trl_worker, "LOG_EVERY", 2)
    whole = _train(sft_run, parents, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        log = trl_worker.Telling.on_log

        def die(self: Any, args: Any, state: Any, *rest: Any, **more: Any) -> None:
            if state.global_step == 6:
                raise KeyboardInterrupt
            log(self, args, state, *rest, **more)

        patch.setattr(trl_worker.Telling, "on_log", die)
        with pytest.raises(KeyboardInterrupt):
            _train(sft_run, parents, tmp_path / "cut")
    assert trl_worker.last_complete(tmp_path / "cut" / "trl")[1]["step"] == 4
    cut = _train(sft_run, parents, tmp_path / "cut")
    assert [line["step"] for line in _log(tmp_path / "cut")] == [2, 4, 6, 8]
    for fact in ("loss", "tokens"):
        logs = [[line[fact] for line in _log(tmp_path / name)] for name in ("cut", "whole")]
        assert logs[0] == logs[1] and cut[fact] == whole[fact]
    ours = pretrained.load(tmp_path / "cut" / "model").state_dict()
    theirs = pretrained.load(tmp_path / "whole" / "model").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_shorter_run_does_not_end_with_a_longer_ones_model(
    parents: dict[str, str], tmp_path: Path
) -> None:
    from stages.align import sft_run

    longer = _train(sft_run, parents, tmp_path / "run", steps=8)
    shorter = _train(sft_run, parents, tmp_path / "run", steps=6)
    assert (longer["steps"], shorter["steps"]) == (8, 6)
    assert (
        shorter["tokens"] < longer["tokens"] and shorter["heldout_loss"] != longer["heldout_loss"]
    )


def test_muon_steps_the_matrices_by_one_size(parents: dict[str, str], tmp_path: Path) -> None:
    """One step at rate r, no warmup: an orthogonal matrix times 0.2 r sqrt(larger side)."""
    from stages.align import sft_run

    rate = 0.01
    _train(
        sft_run, parents, tmp_path, steps=1, optimizer="muon", learning_rate=rate,
        warmup_fraction=0, precision="float32",
    )  # fmt: skip
    before, after = pretrained.load(parents["model"]), pretrained.load(tmp_path / "model")
    for name, start in before.state_dict().items():
        if name.endswith("_proj.weight"):
            change = (after.state_dict()[name] - start).double()
            sizes = torch.linalg.svdvals(change) / (0.2 * rate * max(change.shape) ** 0.5)
            assert sizes[0] < 1.3 and sizes[3] > 0.6, name  # few tokens: the rest may be empty


def test_bfloat16_learns_what_float32_does(parents: dict[str, str], tmp_path: Path) -> None:
    from stages.align import sft_run

    wide = _train(sft_run, parents, tmp_path / "32", precision="float32")
    narrow = _train(sft_run, parents, tmp_path / "16", precision="bfloat16")
    assert narrow["heldout_loss"] == pytest.approx(wide["heldout_loss"], rel=0.05)
    losses = [[line["loss"] for line in _log(tmp_path / bits)] for bits in ("32", "16")]
    assert losses[0] != losses[1]  # it was not the same computation


def test_low_rank_adapters_are_merged(parents: dict[str, str], tmp_path: Path) -> None:
    from stages.align import sft_run

    metrics = _train(sft_run, parents, tmp_path, lora={"rank": 2, "alpha": 4})
    before, after = pretrained.load(parents["model"]), pretrained.load(tmp_path / "model")
    assert torch.equal(before.model.embed_tokens.weight, after.model.embed_tokens.weight)
    name = "model.layers.0.mlp.gate_proj.weight"
    change = after.state_dict()[name] - before.state_dict()[name]
    assert torch.linalg.matrix_rank(change, tol=1e-5) <= 2 and change.abs().max() > 0
    assert metrics["parameters"] == before.config.parameters()


def test_reward_ranks_answers(parents: dict[str, str], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    from stages.align import reward_run

    metrics = _train(reward_run, parents, tmp_path, steps=12)
    assert metrics["accuracy"] > 0.9 and metrics["accuracy_low"] < metrics["accuracy"]
    judge = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    tokenizer = Tokenizer.load(tmp_path / "model")
    row = sums(1, 9)[0]
    good, bad = (
        judge(torch.tensor([tokenizer.encode_chat(row["prompt"] + row[side])[0]])).logits.item()
        for side in ("chosen", "rejected")
    )
    assert good > bad


def test_dpo_widens_the_margin(parents: dict[str, str], tmp_path: Path) -> None:
    from stages.align import dpo_run

    metrics = _train(dpo_run, parents, tmp_path, learning_rate=3e-3, supervised=0.2)
    assert metrics["accuracy"] > 0.9 and metrics["margin"] > 0
    assert metrics["flops"] == 8 * metrics["parameters"] * metrics["tokens"]
    pretrained.load(tmp_path / "model")


def test_examples_of_the_wrong_kind_are_the_users_error(
    parents: dict[str, str], tmp_path: Path
) -> None:
    from stages.align import sft_run

    with pytest.raises(UserError, match=r"conversations\.jsonl does not exist"):
        _train(sft_run, parents | {"examples": str(tmp_path)}, tmp_path / "s")


def test_sfts_loss_on_answers_alone_is_trls(parents: dict[str, str], tmp_path: Path) -> None:
    """Same data, same seed: the loss of every step, with and without projecting the prompts."""
    from trl import SFTTrainer

    from stages.align import sft_run

    _train(sft_run, parents, tmp_path / "ours", steps=6, precision="float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.tune.answers.AnswersOnly", SFTTrainer)
        _train(sft_run, parents, tmp_path / "trl", steps=6, precision="float32")
    ours, trls = _log(tmp_path / "ours"), _log(tmp_path / "trl")
    assert [line["loss"] for line in ours] == pytest.approx(
        [line["loss"] for line in trls], abs=1e-5
    )
