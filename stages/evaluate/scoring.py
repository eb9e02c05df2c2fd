"""Log-probabilities of given tokens under a model: for perplexity and for multiple choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.transformer import Transformer


@dataclass(frozen=True)
class Passage:
    """Token ids of which those from position `scored_from` (at least 1) on are to be scored."""

    token_ids: Sequence[int]
    scored_from: int = 1


@dataclass(frozen=True)
class Score:
    """For every scored token: natural-log probability, and whether it was the likeliest."""

    logprobs: NDArray[np.float64]
    greedy: NDArray[np.bool_]


def score(model: Transformer, passages: Sequence[Passage], batch_tokens: int = 4096) -> list[Score]:
    """Score every passage, in the order given; batches of like length, padded on the right.

    Padding stands after the text, where a causal model cannot see it. `batch_tokens` bounds the
    logits' memory: batch_tokens x vocabulary x 4 bytes.
    """
    for passage in passages:
        if not 1 <= passage.scored_from <= len(passage.token_ids):
            raise ValueError(f"cannot score from {passage.scored_from} of {len(passage.token_ids)}")
    order = sorted(range(len(passages)), key=lambda i: len(passages[i].token_ids))
    batches: list[list[int]] = [[]]
    for number in order:
        if (len(batches[-1]) + 1) * len(passages[number].token_ids) > batch_tokens:
            batches.append([])
        batches[-1].append(number)
    scores: dict[int, Score] = {}
    for batch in filter(None, batches):
        scores.update(zip(batch, _score_batch(model, [passages[i] for i in batch]), strict=True))
    return [scores[number] for number in range(len(passages))]


@torch.inference_mode()
def _score_batch(model: Transformer, passages: Sequence[Passage]) -> list[Score]:
    """One padded forward pass."""
    longest = max(len(passage.token_ids) for passage in passages)
    input_ids_bt = torch.zeros(len(passages), longest, dtype=torch.long)
    for row, passage in enumerate(passages):
        input_ids_bt[row, : len(passage.token_ids)] = torch.as_tensor(list(passage.token_ids))
    logits_btv = model(input_ids_bt[:, :-1]) if longest > 1 else None
    scores = []
    for row, passage in enumerate(passages):
        if logits_btv is None or passage.scored_from == len(passage.token_ids):
            scores.append(Score(np.zeros(0), np.zeros(0, dtype=np.bool_)))
            continue
        where = slice(passage.scored_from - 1, len(passage.token_ids) - 1)
        wanted_t = input_ids_bt[row, passage.scored_from : len(passage.token_ids)]
        logits_tv = logits_btv[row, where].double()
        chosen_t = logits_tv.gather(1, wanted_t[:, None])[:, 0]
        scores.append(
            Score(
                (chosen_t - logits_tv.logsumexp(dim=1)).numpy(),
                (logits_tv.argmax(dim=1) == wanted_t).numpy(),
            )
        )
    return scores
