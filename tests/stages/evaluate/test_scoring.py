"""Scores of given tokens, against transformers one passage at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.transformer import Transformer
from stages.evaluate.heldout import (
    TextCost,
    choose,
    model_cost,
    passages_of,
    perplexity_ratio,
    read_all,
    saving,
    token_sizes,
)
from stages.evaluate.scoring import Passage, score
from stages.text.token_shards import TokenShards


def test_equals_transformers_whatever_the_batch(
    tiny_model: Transformer, save_model: Callable[..., Path]
) -> None:
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(save_model(), dtype=torch.float32).eval()
    rng = np.random.default_rng(0)
    passages = [
        Passage(rng.integers(0, 300, size).tolist(), start)
        for size, start in ((9, 1), (2, 1), (30, 7), (5, 5), (1, 1), (12, 11))
    ]
    for batch_tokens in (1, 64, 4096):
        for passage, found in zip(passages, score(tiny_model, passages, batch_tokens), strict=True):
            with torch.no_grad():
                logits = reference(torch.tensor([list(passage.token_ids)])).logits[0].double()
            ids, start = list(passage.token_ids), passage.scored_from
            wanted = logits.log_softmax(-1)[range(start - 1, len(ids) - 1), ids[start:]]
            np.testing.assert_allclose(found.logprobs, wanted.numpy(), atol=1e-4)
            likeliest = logits.argmax(-1)[start - 1 : len(ids) - 1].tolist()
            assert found.greedy.tolist() == np.equal(likeliest, ids[start:]).tolist()


def test_a_passage_without_a_scored_token_is_refused(tiny_model: Transformer) -> None:
    with pytest.raises(ValueError, match="cannot score from 4 of 3"):
        score(tiny_model, [Passage([1, 2, 3], 4)])


@pytest.mark.parametrize("size", [1, 5, 8, 9, 30, 31])
def test_windows_score_every_token_but_the_first_once(size: int) -> None:
    document = np.arange(size)
    scored: list[int] = []
    for passage in passages_of(document, length=8, overlap=3):
        assert len(passage.token_ids) <= 8
        scored += list(passage.token_ids[passage.scored_from :])
    assert scored == list(range(1, size))


def test_cost_counts_bytes_and_nats(tiny_model: Transformer, tokens_folder: Path) -> None:
    from model.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(tokens_folder / "tokenizer")
    shards = TokenShards(tokens_folder / "heldout")
    documents = read_all(shards)
    assert len(documents) == 30 and all(d[-1] == tokenizer.end_of_text_id for d in documents)
    sizes = token_sizes(tokens_folder / "tokenizer" / "tokenizer.json", shards.vocabulary_size)
    for document in documents:
        assert sizes[document].sum() == len(tokenizer.decode(document.tolist()).encode())
    cost = model_cost(tiny_model, documents[:3], sizes, length=512, overlap=64)
    for document, bits in zip(documents[:3], cost.bits, strict=True):
        with torch.no_grad():
            logits = tiny_model(torch.from_numpy(document)[None, :-1])[0].double()
        loss = torch.nn.functional.cross_entropy(
            logits, torch.from_numpy(document[1:]), reduction="sum"
        )
        assert bits == pytest.approx(float(loss) / np.log(2), rel=1e-4)


def test_documents_are_chosen_whole_up_to_the_limit() -> None:
    documents = [np.arange(size) for size in (10, 1, 20, 30)]
    chosen = choose(documents, 45, seed=0)
    assert sum(map(len, chosen)) == 45 and all(len(document) > 1 for document in chosen)
    assert sum(map(len, choose(documents, 1000, seed=0))) == 60


def test_comparisons_are_paired() -> None:
    def cost(bits: list[float]) -> TextCost:
        return TextCost(np.array(bits), np.array([10, 10]), np.array([4, 4]))

    assert saving(cost([8, 80]), cost([10, 82]), 0) == pytest.approx([0.2, 0.2, 0.2])
    doubled = perplexity_ratio(cost([12, 84]), cost([8, 80]), 0)
    assert doubled == pytest.approx([1.0, 1.0, 1.0])
    assert cost([8, 8]).perplexity() == pytest.approx(4.0)
