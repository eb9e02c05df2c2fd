"""The RLVR stage: what the learner is handed, and a run that is cut off and resumed to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cluster.artifact import Artifact
from model import pretrained
from model.config import ModelConfig
from stages.reinforce.rollouts import Rollout
from stages.rlvr import STAGE, Config
from stages.rlvr.run import Judged, experiences, flops, run
from stages.stage import Context
from stages.tasks.generate import draw_problems
from stages.tasks.problem import write_problems
from stages.verify.verdict import Verdict, broken, right, wrong
from tests.stages.reinforce.tiny import tiny_checkpoint

PROBLEMS = draw_problems(4, split="train", counts={"arithmetic": 6, "format": 6})


def config(**more: object) -> Config:
    values = {
        "model": "m", "problems": "p", "steps": 4, "tasks": ["arithmetic", "format"],
        "prompts_per_step": 4, "samples_per_prompt": 4, "max_new_tokens": 8, "commit_every": 2,
        "partial_credit": True, "workers": 1, "threads": 1, "warmup_updates": 0,
    }  # fmt: skip
    return Config(**{**values, **more})


def judged(verdicts: list[list[Verdict]]) -> Judged:
    rollouts = [
        Rollout(PROBLEMS[g].id, s, [1, 2, 3], [5] * (s + 1), [-0.5] * (s + 1), True, "x")
        for g, group in enumerate(verdicts)
        for s in range(len(group))
    ]
    return Judged(rollouts, [verdict for group in verdicts for verdict in group])


def test_only_groups_that_differ_and_samples_with_a_verdict_are_learned_from() -> None:
    taken = judged([[right(), wrong("no"), broken("lost"), wrong("no")], [right()] * 4])
    batch, figures = experiences(config(), PROBLEMS[:2], taken)
    assert [len(row.completion_ids) for row in batch] == [1, 2, 4]
    assert [row.advantages[0] for row in batch] == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    assert figures["pass_rate"] == pytest.approx(5 / 7)
    assert figures["verifier_errors"] == 1
    assert figures["entropy"] == pytest.approx(0.5)


def test_partial_credit_pays_the_score() -> None:
    verdicts = [[wrong("half", 0.5), wrong("none"), wrong("none"), wrong("none")]]
    batch, _ = experiences(config(), PROBLEMS[:1], judged(verdicts))
    assert len(batch) == 4
    batch, _ = experiences(config(partial_credit=False), PROBLEMS[:1], judged(verdicts))
    assert batch == []


def test_flops_count_sampling_and_learning() -> None:
    shape = ModelConfig()
    taken = judged([[right(), wrong("")]])
    tokens = sum(len(r.prompt_ids) + len(r.completion_ids) for r in taken.rollouts)
    n = shape.parameters()
    found = flops(shape, taken.rollouts, tokens, config())
    assert found == pytest.approx((2 + 6) * n * tokens, rel=0.02)
    assert flops(shape, taken.rollouts, tokens, config(kl_coefficient=0.1)) > found


def test_the_stage_declares_its_roles() -> None:
    assert STAGE.kind == "checkpoint"
    with pytest.raises(ValueError):
        config(learning_rat=1.0)


@pytest.mark.dist
@pytest.mark.usefixtures("ray_session")
def test_a_cut_off_run_goes_on_to_the_bit(
    tmp_path: Path, as_artifact: Callable[..., Artifact]
) -> None:
    tiny_checkpoint(tmp_path / "parent")
    (tmp_path / "problems").mkdir()
    write_problems(tmp_path / "problems" / "problems.jsonl", PROBLEMS)
    inputs = {
        "model": as_artifact(tmp_path / "parent", "checkpoint"),
        "problems": as_artifact(tmp_path / "problems", "examples"),
    }

    def context(name: str, scratch: str) -> Context:
        out = tmp_path / name
        out.mkdir()
        (tmp_path / scratch).mkdir(exist_ok=True)
        return Context(seed=17, out=out, scratch=tmp_path / scratch)

    whole = context("whole", "scratch-whole")
    metrics = run(config(), inputs, whole)
    assert metrics["steps"] == 4 and metrics["flops"] > 0
    assert metrics["verifier_errors"] == 0

    class Cut(Exception):
        pass

    def cut(done: float, total: float, text: str) -> None:
        if done == 3:  # after the commit of step 2, in the middle of what follows
            raise Cut

    with pytest.raises(Cut):
        run(config(), inputs, replace(context("cut", "scratch-cut"), progress=cut))
    steps: list[float] = []
    resumed = replace(
        context("resumed", "scratch-cut"), progress=lambda done, total, text: steps.append(done)
    )
    assert run(config(), inputs, resumed) == metrics
    assert steps == [3, 4]
    shorter = context("shorter", "scratch-short")
    run(config(steps=2), inputs, shorter)
    longer = context("longer", "scratch-short")
    run(config(), inputs, longer)
    for name in ("model.safetensors", "log.jsonl", "rollouts.jsonl", "config.json"):
        expected = (whole.out / name).read_bytes()
        assert (resumed.out / name).read_bytes() == expected, name
        assert (longer.out / name).read_bytes() == expected, name
    check_what_is_published(whole.out, tmp_path / "parent")


def check_what_is_published(out: Path, parent: Path) -> None:
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    trained, start = pretrained.load(out), pretrained.load(parent)
    changed = [
        not torch.equal(a, b) for a, b in zip(trained.parameters(), start.parameters(), strict=True)
    ]
    assert any(changed) == any(line["learned_from"] > 0 for line in log)
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (parent / name).read_bytes()
    rollouts = [json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()]
    assert len(rollouts) == 2 * 4 * 4
    assert {"passed", "reason", "text", "logprobs"} <= set(rollouts[0])
