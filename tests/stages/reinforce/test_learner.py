"""The learner against plain float64 autograd, and its state through a save and a load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import pretrained
from model.transformer import Transformer
from stages.reinforce import token_batch
from stages.reinforce.learner import Experience, Learner, LearnerSettings
from stages.reinforce.token_batch import TokenBatch, micro_batches
from tests.stages.reinforce.tiny import tiny_checkpoint

SETTINGS = LearnerSettings(learning_rate=1e-3, longest=8, max_grad_norm=1e9)


@pytest.fixture
def model(tmp_path: Path) -> Transformer:
    return pretrained.load(tiny_checkpoint(tmp_path / "model"))


def experience(model: Transformer, rows: int = 6, seed: int = 0) -> list[Experience]:
    """Random prompts and completions of different lengths with a policy a little off."""
    random = torch.Generator().manual_seed(seed)

    def ids(count: int) -> list[int]:
        return torch.randint(4, 280, (count,), generator=random).tolist()

    batch = []
    for row in range(rows):
        prompt, completion = ids(3 + row), ids(1 + (row * 3) % 8)
        with torch.no_grad():
            logprobs = TokenBatch([prompt], [completion]).logprobs(model)
        noise = torch.randn(len(completion), generator=random) * 0.3
        advantages = torch.randn(len(completion), generator=random)
        batch.append(
            Experience(
                prompt,
                completion,
                (logprobs + noise).tolist(),
                advantages.tolist(),
                [0.1] * len(completion),
                [0.5] * len(completion),
            )
        )
    return batch


def reference_loss(model: Transformer, batch: list[Experience]) -> torch.Tensor:
    """The token-mean clipped surrogate, row by row, in float64, from full logits."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in batch:
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        logprobs = torch.log_softmax(model(ids)[0].double(), -1)
        for k, token in enumerate(row.completion_ids):
            new = logprobs[len(row.prompt_ids) - 1 + k, token]
            ratio = torch.exp(new - row.logprobs[k])
            advantage = row.advantages[k]
            total = total - torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            count += 1
    return total / count


@pytest.mark.parametrize("micro_tokens", [16, 40, 10_000])
def test_gradients_equal_the_reference_at_any_micro_batch(
    model: Transformer, micro_tokens: int
) -> None:
    batch = experience(model)
    expected = reference_loss(model, batch)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    learner = Learner(model, replace(SETTINGS, micro_tokens=micro_tokens, learning_rate=1e-12))
    metrics = learner.update(batch, seed=1)
    assert metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, atol=2e-5, rtol=1e-3)
    seen = sum(len(r.prompt_ids) + len(r.completion_ids) - 1 for r in batch)
    assert metrics["tokens"] == seen  # a last token predicts nothing


def test_the_reference_pulls_back(model: Transformer) -> None:
    batch = [replace(row, advantages=[0.0] * len(row.advantages)) for row in experience(model)]
    learner = Learner(model, replace(SETTINGS, kl_coefficient=1.0), reference=True)
    assert learner.update(batch, 0)["kl"] == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    distances = [learner.update(batch, step)["kl"] for step in range(20)]
    assert distances[-1] < distances[0] * 0.8


def test_the_value_head_learns_and_leaves_the_trunk_alone(model: Transformer) -> None:
    batch = [replace(row, advantages=[0.0] * len(row.advantages)) for row in experience(model)]
    head = torch.nn.Linear(32, 1)
    learner = Learner(
        model, replace(SETTINGS, value_learning_rate=0.02, value_clip=10.0), value_head=head
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = [learner.update(batch, step)["value_loss"] for step in range(60)]
    assert losses[-1] < losses[0] * 0.3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_scores_are_the_references(model: Transformer) -> None:
    batch = experience(model)
    learner = Learner(model, SETTINGS, value_head=torch.nn.Linear(32, 1), reference=True)
    scores = learner.score([r.prompt_ids for r in batch], [r.completion_ids for r in batch])
    for row, score in zip(batch, scores, strict=True):
        expected = TokenBatch([row.prompt_ids], [row.completion_ids]).logprobs(model)
        torch.testing.assert_close(
            torch.tensor(score.reference_logprobs), expected.detach(), atol=1e-5, rtol=1e-5
        )
        assert len(score.values) == len(row.completion_ids)


def test_learning_raises_what_is_rewarded(model: Transformer) -> None:
    _, good, bad = experience(model, rows=3)  # of 4 and 7 tokens
    rewarded = [
        replace(good, advantages=[1.0] * len(good.advantages)),
        replace(bad, advantages=[-1.0] * len(bad.advantages)),
    ]
    learner = Learner(model, replace(SETTINGS, clip_low=0.9, clip_high=9.0))

    def total(row: Experience) -> float:
        with torch.no_grad():
            return float(TokenBatch([row.prompt_ids], [row.completion_ids]).logprobs(model).sum())

    before = [total(good), total(bad)]
    for step in range(5):
        learner.update(rewarded, step)
    assert total(good) > before[0] and total(bad) < before[1]


def test_a_loaded_learner_goes_on_to_the_bit(model: Transformer, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=2, minibatches=2, warmup_updates=6, weight_decay=0.1)
    batch = experience(model)
    learner = Learner(model, settings, value_head=torch.nn.Linear(32, 1, bias=False))
    learner.update(batch, 1)
    learner.save(tmp_path)
    learner.update(batch, 2)

    other = pretrained.load(tiny_checkpoint(tmp_path / "other", seed=9))
    resumed = Learner(other, settings, value_head=torch.nn.Linear(32, 1, bias=False))
    resumed.load(tmp_path)
    assert resumed.updates == 4
    resumed.update(batch, 2)
    for name, tensor in learner.weights().items():
        assert torch.equal(tensor, resumed.weights()[name]), name
    assert learner.value_head is not None and resumed.value_head is not None
    assert torch.equal(learner.value_head.weight, resumed.value_head.weight)


def test_a_broken_gradient_is_refused(model: Transformer) -> None:
    batch = [replace(row, advantages=[float("nan")] * len(row.advantages))
             for row in experience(model)]  # fmt: skip
    with pytest.raises(FloatingPointError, match="update 0 is nan"):
        Learner(model, SETTINGS).update(batch, 0)


def test_an_empty_batch_changes_nothing(model: Transformer) -> None:
    learner = Learner(model, SETTINGS)
    before = learner.weights()
    assert learner.update([], 0) == {"tokens": 0.0}
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.weights().items())


def test_micro_batches_hold_every_row_once_within_the_limit() -> None:
    prompts = [[0] * n for n in (5, 2, 9, 30, 2)]
    completions = [[0] * n for n in (1, 2, 3, 4, 5)]
    batches = micro_batches(prompts, completions, 20)
    assert sorted(row for batch in batches for row in batch) == [0, 1, 2, 3, 4]
    assert [1, 4] in [[row for row in batch if row in (1, 4)] for batch in batches]
    for batch in batches:
        read = sum(len(prompt) for prompt in {tuple(prompts[row]) for row in batch})
        assert len(batch) == 1 or read + sum(len(completions[row]) for row in batch) <= 20


@pytest.mark.parametrize("window", [None, 3])
def test_completions_of_a_prompt_share_it_and_do_not_see_each_other(
    model: Transformer, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rows of their own, prompt and completion; in lines short and long."""
    model = Transformer(model.config.model_copy(update={"sliding_window": window}))
    draw = torch.Generator().manual_seed(3)

    def ids(count: int) -> list[int]:
        return torch.randint(4, 280, (count,), generator=draw).tolist()

    asked = [ids(n) for n in (4, 9, 1)]
    prompts = [asked[n] for n in (0, 1, 0, 2, 1, 0, 0)]
    completions = [ids(n) for n in (3, 1, 6, 2, 5, 1, 4)]
    alone = []
    for prompt, completion in zip(prompts, completions, strict=True):
        row = torch.tensor([[*prompt, *completion]])
        scores = torch.log_softmax(model(row)[0, len(prompt) - 1 : -1], -1)
        alone.append(scores.gather(1, torch.tensor(completion)[:, None])[:, 0])
    for room, most in ((1, 4 * 4 + 9 * 2 + 1 + 22 - 7), (192, 4 + 9 + 1 + 22 - 7)):
        monkeypatch.setattr(token_batch, "LINE_TOKENS", room)
        batch = TokenBatch(prompts, completions)
        torch.testing.assert_close(batch.logprobs(model), torch.cat(alone), atol=1e-5, rtol=1e-5)
        assert batch.tokens <= most
        spread = batch.spread(batch.logprobs(model))
        assert torch.equal(spread[2, :6] != 0, torch.ones(6, dtype=torch.bool))
        assert not bool(spread[3, 2:].any())
    assert batch.tokens == 4 + 9 + 1 + 22 - 7
