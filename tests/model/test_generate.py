from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import Qwen3ForCausalLM

from model.generate import _sample, generate, sequence_logprobs
from model.stop_strings import before_stop
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from tests.model.conftest import lively, small_config

PROMPTS = [[5, 6, 7], [9], [11, 3, 8, 2, 40, 7, 1], [5, 6, 7], [100, 101, 102, 103]]


def test_greedy_tokens_are_hugging_faces(model: Transformer, twin: Qwen3ForCausalLM) -> None:
    found = generate(model, PROMPTS, max_new_tokens=20, temperature=0)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        theirs = twin.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=20, eos_token_id=None
        )
        assert completion.token_ids == theirs[0, len(prompt) :].tolist()
        assert not completion.finished


def test_logprobs_are_those_of_a_whole_pass_at_temperature_1(model: Transformer) -> None:
    found = generate(model, PROMPTS, max_new_tokens=12, temperature=0.7, top_k=20, seed=3)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt + completion.token_ids])
        with torch.no_grad():
            logprobs = torch.log_softmax(model(ids)[0, len(prompt) - 1 : -1], -1)
        expected = logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0]
        torch.testing.assert_close(
            torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=1e-4
        )


def test_batch_mates_and_length_change_nothing(model: Transformer) -> None:
    seeds = [11, 12, 13, 14, 15]
    together = generate(model, PROMPTS, max_new_tokens=16, seed=seeds)
    for prompt, seed, completion in zip(PROMPTS, seeds, together, strict=True):
        alone = generate(model, [prompt], max_new_tokens=30, seed=[seed])[0]
        assert alone.token_ids[:16] == completion.token_ids
    assert together[0].token_ids != together[3].token_ids  # one prompt, two seeds
    assert generate(model, PROMPTS, max_new_tokens=16, seed=seeds) == together


def test_rows_stop_leave_and_stay_in_order(model: Transformer) -> None:
    free = generate(model, PROMPTS * 4, max_new_tokens=24, seed=5)
    stops = [c.token_ids[2 + row % 9] for row, c in enumerate(free)][:8]
    found = generate(model, PROMPTS * 4, max_new_tokens=24, seed=5, stop_ids=stops)
    assert any(c.finished for c in found)
    for whole, cut in zip(free, found, strict=True):
        ends = [i for i, token in enumerate(whole.token_ids) if token in stops]
        length = ends[0] + 1 if ends else 24
        assert cut.token_ids == whole.token_ids[:length]
        assert cut.finished == bool(ends)
        assert cut.logprobs == pytest.approx(whole.logprobs[:length], abs=1e-4)


def test_stop_strings_cross_tokens(tokenizer: Tokenizer) -> None:
    """A row ends where its text first holds a string, wherever the tokens' borders are."""
    model = lively(small_config(vocab_size=tokenizer.vocabulary_size))
    options = {"max_new_tokens": 40, "seed": 3, "top_k": 300}
    free = generate(model, PROMPTS, **options)
    texts = [tokenizer.decode(completion.token_ids) for completion in free]
    # What a random model says is mostly no UTF-8: take pairs of characters that are.
    pairs = [[a + b for a, b in pairwise(text[5:]) if "\ufffd" not in a + b] for text in texts]
    strings = [*[found[0] for found in pairs if found][:3], "never said at all"]
    found = generate(model, PROMPTS, **options, stop_strings=strings, tokenizer=tokenizer)
    assert len(strings) == 4 and sum(completion.finished for completion in found) >= 3
    for whole, cut in zip(free, found, strict=True):
        prefixes = [tokenizer.decode(whole.token_ids[: n + 1]) for n in range(40)]
        ends = [n for n, text in enumerate(prefixes) if any(s in text for s in strings)]
        length = ends[0] + 1 if ends else 40
        assert cut.token_ids == whole.token_ids[:length]
        assert cut.finished == bool(ends)
        text = before_stop(tokenizer.decode(cut.token_ids), strings)
        assert not any(string in text for string in strings)
        assert tokenizer.decode(cut.token_ids).startswith(text)
    with pytest.raises(ValueError, match=r"stop strings \['x'\] without a tokenizer"):
        generate(model, PROMPTS, max_new_tokens=1, stop_strings=["x"])
    with pytest.raises(ValueError, match="a stop string is empty"):
        generate(model, PROMPTS, max_new_tokens=1, stop_strings=[""], tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 5, 1.0), (1.0, 0, 0.6), (0.8, 9, 0.9)],
)
def test_samples_follow_the_truncated_distribution(
    temperature: float, top_k: int, top_p: float
) -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -2.0, 1.5, 0.2, 0.1, -0.3, 3.0])
    logits = torch.cat((logits, torch.full((140,), -float("inf")), torch.tensor([1.2])))
    kept = torch.softmax(logits.double() / temperature, -1)
    order = kept.argsort(descending=True)
    if top_k:
        kept[order[top_k:]] = 0
    kept /= kept.sum()
    before = kept[order].cumsum(0) - kept[order]
    kept[order[before >= top_p]] = 0
    kept /= kept.sum()
    count = 100_000
    uniform = (torch.arange(count) + 0.5) / count  # every quantile once: no chance left
    tokens, logprobs = _sample(logits.expand(count, -1), uniform, temperature, top_k, top_p)
    shares = torch.bincount(tokens, minlength=len(logits)).double() / count
    torch.testing.assert_close(shares, kept, atol=2e-4, rtol=0)
    torch.testing.assert_close(logprobs, torch.log_softmax(logits, -1)[tokens])


def test_the_ends_of_the_unit_interval_pick_tokens_with_mass() -> None:
    logits = torch.full((2, 300), -float("inf"))
    logits[:, 17] = 0.0
    logits[:, 200] = 1.0
    tokens, _ = _sample(logits, torch.tensor([0.0, 1.0 - 2**-24]), 1.0, 0, 1.0)
    assert tokens.tolist() == [17, 200]


def test_sequence_logprobs_and_gradient(model: Transformer) -> None:
    completions = [[1, 2, 3], [4], [], [7, 8], [9, 10, 11, 12]]
    model.double()
    found = sequence_logprobs(model, PROMPTS, completions, chunk_tokens=3)
    assert found.shape == (5, 4)
    expected = torch.zeros_like(found)
    for row, (prompt, answer) in enumerate(zip(PROMPTS, completions, strict=True)):
        if answer:
            ids = torch.tensor([prompt + answer])
            hidden = model.hidden(ids)[0, len(prompt) - 1 : -1]
            logprobs = torch.log_softmax(hidden @ model.lm_head.weight.T, -1)
            expected[row, : len(answer)] = logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0]
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    weights = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found, weights, upstream),
        torch.autograd.grad(expected, weights, upstream),
    )


def test_sampled_and_scored_logprobs_agree(model: Transformer) -> None:
    found = generate(model, PROMPTS, max_new_tokens=9, seed=1)
    with torch.no_grad():
        scored = sequence_logprobs(model, PROMPTS, [c.token_ids for c in found])
    np.testing.assert_allclose(scored.numpy(), [c.logprobs for c in found], atol=1e-4)


def test_bad_requests_say_found_and_expected(model: Transformer) -> None:
    with pytest.raises(ValueError, match="a prompt is empty"):
        generate(model, [[1], []], max_new_tokens=1)
    with pytest.raises(ValueError, match="max_new_tokens is 0; expected at least 1"):
        generate(model, [[1]], max_new_tokens=0)
    with pytest.raises(ValueError, match=r"temperature is -1.0; expected 0"):
        generate(model, [[1]], max_new_tokens=1, temperature=-1.0)
    with pytest.raises(ValueError, match="temperature is nan; expected 0"):
        generate(model, [[1]], max_new_tokens=1, temperature=float("nan"))
    with pytest.raises(ValueError, match="top_p 0"):
        generate(model, [[1]], max_new_tokens=1, top_p=0)
    with pytest.raises(ValueError, match="2 seeds for 1 prompts"):
        generate(model, [[1]], max_new_tokens=1, seed=[1, 2])
    with pytest.raises(ValueError, match="a seed is -1; expected 0 or more"):
        generate(model, [[1]], max_new_tokens=1, seed=-1)
    with pytest.raises(ValueError, match="1 prompts and 2 completions"):
        sequence_logprobs(model, [[1]], [[1], [2]])
    assert generate(model, [], max_new_tokens=3) == []
    assert sequence_logprobs(model, [], []).shape == (0, 0)


@pytest.mark.parametrize("top_k", [0, 5])
def test_a_tiny_temperature_is_greedy(model: Transformer, top_k: int) -> None:
    greedy = generate(model, PROMPTS, max_new_tokens=5, temperature=0)
    cold = generate(model, PROMPTS, max_new_tokens=5, temperature=1e-38, top_k=top_k)
    assert cold == greedy


def test_numpys_integers_are_seeds(model: Transformer) -> None:
    assert generate(model, PROMPTS, max_new_tokens=5, seed=np.int64(7)) == generate(  # type: ignore[arg-type]
        model, PROMPTS, max_new_tokens=5, seed=7
    )
