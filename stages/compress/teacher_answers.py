"""Examples whose answers are a teacher's own: sequence-level distillation (arXiv:1606.07947)."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from model import pretrained
from model.tokenizer import Tokenizer
from stages.reinforce.rollouts import Rollout, Sampling, sample

Row = dict[str, Any]


def answered(rows: list[Row], teacher: str, max_new_tokens: int) -> tuple[list[Row], float]:
    """The conversations with the last answer replaced by the teacher's, and the FLOPs that took.

    Answers are greedy; where one does not end within `max_new_tokens` the given one stays. Each
    rank answers its share, all get the whole.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    model, tokenizer = pretrained.load(teacher).eval(), Tokenizer.load(teacher)
    asked = {str(i): rows[i]["messages"][:-1] for i in range(rank, len(rows), world)}
    rollouts = sample(
        model, tokenizer, asked, samples=1, sampling=Sampling(max_new_tokens, 0.0), seed=0
    )
    mine = {r.prompt: r.text for r in rollouts if r.finished}
    flops = sum(_flops(model.config, rollout) for rollout in rollouts)
    shares: list[Any] = [None] * world
    dist.all_gather_object(shares, (mine, flops))
    answers = {prompt: text for share, _ in shares for prompt, text in share.items()}
    replaced = [
        _with_answer(row, answers[str(i)]) if str(i) in answers else row
        for i, row in enumerate(rows)
    ]
    return replaced, sum(flops for _, flops in shares)


def _flops(config: pretrained.ModelConfig, rollout: Rollout) -> float:
    length = len(rollout.prompt_ids) + len(rollout.completion_ids)
    return length * config.flops_per_token(length, training=False)


def _with_answer(row: Row, text: str) -> Row:
    *asked, last = row["messages"]
    return {**row, "messages": [*asked, {**last, "content": text}]}
