"""Rollouts: order, seeds, texts and log-probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model import pretrained
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from stages.reinforce.rollouts import Rollout, Sampling, row_seed, sample
from tests.stages.reinforce.tiny import tiny_checkpoint

PROMPTS = {
    "short": [{"role": "user", "content": "What is 1?"}],
    "a much longer one": [{"role": "user", "content": "What is 12 + 30? " * 3}],
    "third": [{"role": "user", "content": "def f(x):"}],
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Transformer, Tokenizer]:
    folder: Path = tiny_checkpoint(tmp_path_factory.mktemp("model"))
    return pretrained.load(folder), Tokenizer.load(folder)


def take(parts: tuple[Transformer, Tokenizer], names: list[str], seed: int = 1) -> list[Rollout]:
    return sample(
        *parts, {name: PROMPTS[name] for name in names}, samples=3, sampling=Sampling(12), seed=seed
    )


def test_order_and_groups(parts: tuple[Transformer, Tokenizer]) -> None:
    rollouts = take(parts, list(PROMPTS))
    assert [(r.prompt, r.sample) for r in rollouts] == [(n, s) for n in PROMPTS for s in range(3)]
    for rollout in rollouts:
        ids, _ = parts[1].encode_chat(PROMPTS[rollout.prompt], add_generation_prompt=True)
        assert rollout.prompt_ids == ids
        assert len(rollout.logprobs) == len(rollout.completion_ids) <= 12
        assert rollout.finished or len(rollout.completion_ids) == 12


def test_a_sample_depends_on_its_own_seed_only(parts: tuple[Transformer, Tokenizer]) -> None:
    together = {(r.prompt, r.sample): r.completion_ids for r in take(parts, list(PROMPTS))}
    for name in PROMPTS:
        for rollout in take(parts, [name]):
            assert together[name, rollout.sample] == rollout.completion_ids
    other = take(parts, list(PROMPTS), seed=2)
    assert [r.completion_ids for r in other] != list(together.values())
    assert len({row_seed(1, name, number) for name in PROMPTS for number in range(100)}) == 300


def test_logprobs_are_the_models(parts: tuple[Transformer, Tokenizer]) -> None:
    model, _ = parts
    for rollout in take(parts, list(PROMPTS)):
        ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])
        with torch.no_grad():
            expected = torch.log_softmax(model(ids)[0].double(), -1)
        start = len(rollout.prompt_ids)
        picked = [
            float(expected[start - 1 + k, token]) for k, token in enumerate(rollout.completion_ids)
        ]
        np.testing.assert_allclose(rollout.logprobs, picked, atol=1e-4)


def test_the_record_is_what_a_log_needs(parts: tuple[Transformer, Tokenizer]) -> None:
    record = take(parts, ["third"])[0].as_record(passed=True)
    assert record["passed"] is True and "prompt_ids" not in record
    assert {"prompt", "sample", "completion_ids", "logprobs", "finished", "text"} <= set(record)
