"""The PPO stage: rewards spread over tokens, prompts read, and a run on real actors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cluster.artifact import Artifact
from cluster.errors import UserError
from model import pretrained
from stages.align.ppo import Config
from stages.align.ppo_run import experiences, prompts_of_step, read_prompts, run
from stages.reinforce.actors import Sampled
from stages.reinforce.learner import Scores
from stages.reinforce.rollouts import Rollout
from stages.stage import Context
from tests.stages.reinforce.tiny import tiny_checkpoint, tiny_reward_model


def config(**more: object) -> Config:
    values = {
        "model": "m", "reward": "r", "examples": "e", "steps": 3, "prompts_per_step": 4,
        "samples_per_prompt": 2, "max_new_tokens": 6, "commit_every": 2, "workers": 1,
        "threads": 1, "measure_prompts": 8, "warmup_updates": 0,
    }  # fmt: skip
    return Config(**{**values, **more})


def preferences(file: Path, count: int) -> None:
    lines = [
        {"prompt": [{"role": "user", "content": f"What is {n}?"}],
         "chosen": [{"role": "assistant", "content": "answer"}],
         "rejected": [{"role": "assistant", "content": "def"}]}
        for n in range(count)
    ]  # fmt: skip
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_reward_is_spread_over_the_tokens() -> None:
    """With no value estimate, gamma = lambda = 1 and no whitening, the return is what is left."""
    rollouts = [
        Rollout("a", 0, [1], [5, 6, 7], [-1.0, -2.0, -3.0], True, "x"),
        Rollout("b", 0, [1], [5], [-1.0], False, "y"),
    ]
    scores = [Scores([0.0] * 3, [-1.5, -2.0, -2.0]), Scores([0.0], [-1.0])]
    batch, kl = experiences(
        config(kl_coefficient=0.1, gae_lambda=1.0, unfinished_penalty=2.0),
        Sampled(rollouts, [4.0, 1.0]),
        scores,
    )
    assert batch[0].returns == pytest.approx([4.0 - 0.05 + 0.1, 4.0 + 0.1, 4.0 + 0.1])
    assert batch[1].returns == pytest.approx([1.0 - 2.0])
    assert kl == pytest.approx(((0.5 + 0.0 - 1.0) + 0.0) / 2)
    advantages = torch.tensor([*batch[0].advantages, *batch[1].advantages])
    assert float(advantages.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(advantages.std(unbiased=False)) == pytest.approx(1.0, abs=1e-4)
    assert advantages[3] < advantages[:3].min()


def test_prompts_are_read_once_each(tmp_path: Path) -> None:
    preferences(tmp_path / "preferences.jsonl", 5)
    text = (tmp_path / "preferences.jsonl").read_text()
    (tmp_path / "preferences.jsonl").write_text(text + text)
    prompts = read_prompts(tmp_path / "preferences.jsonl")
    assert len(prompts) == 5
    chosen = prompts_of_step(prompts, 2, 3, seed=1)
    assert len(chosen) == 3
    assert list(prompts_of_step(prompts, 2, 3, seed=1)) == list(chosen)


def test_bad_preferences_are_named(tmp_path: Path) -> None:
    file = tmp_path / "preferences.jsonl"
    with pytest.raises(UserError, match="does not exist; expected an examples artifact"):
        read_prompts(file)
    file.write_text('{"chosen": []}\n')
    with pytest.raises(UserError, match="line 1 has no prompt"):
        read_prompts(file)
    file.write_text("")
    with pytest.raises(UserError, match="is empty"):
        read_prompts(file)


@pytest.mark.dist
@pytest.mark.usefixtures("ray_session")
def test_a_run_and_its_resumption(tmp_path: Path, as_artifact: Callable[..., Artifact]) -> None:
    preferences(tmp_path / "examples" / "preferences.jsonl", 12)
    preferences(tmp_path / "examples" / "heldout.jsonl", 8)
    inputs = {
        "model": as_artifact(tiny_checkpoint(tmp_path / "parent"), "checkpoint"),
        "reward": as_artifact(tiny_reward_model(tmp_path / "judge"), "checkpoint", "reward"),
        "examples": as_artifact(tmp_path / "examples", "examples"),
    }

    def context(name: str, scratch: str) -> Context:
        (tmp_path / name).mkdir()
        (tmp_path / scratch).mkdir(exist_ok=True)
        return Context(seed=3, out=tmp_path / name, scratch=tmp_path / scratch)

    whole = context("whole", "scratch")
    metrics = run(config(learning_rate=3e-3), inputs, whole)
    assert metrics["steps"] == 3 and metrics["kl"] != 0.0
    assert metrics["reward_before"] != metrics["reward_after"]

    def cut(done: float, total: float, text: str) -> None:
        if done == 2:  # committed, but the third step is not begun
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(config(learning_rate=3e-3), inputs, replace(context("cut", "again"), progress=cut))
    resumed = context("resumed", "again")
    assert run(config(learning_rate=3e-3), inputs, resumed) == metrics
    for name in ("model.safetensors", "log.jsonl", "rollouts.jsonl"):
        assert (resumed.out / name).read_bytes() == (whole.out / name).read_bytes(), name
    start, trained = pretrained.load(tmp_path / "parent"), pretrained.load(whole.out)
    assert any(
        not torch.equal(a, b) for a, b in zip(start.parameters(), trained.parameters(), strict=True)
    )
