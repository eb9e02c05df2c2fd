"""Training at a parallel shape against one process of plain PyTorch: the same losses and norms."""

from __future__ import annotations

import json
import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from model.config import ModelConfig
from model.flops import document_lengths, packed_flops_per_token
from model.moe import balance_experts
from model.optimizer import Kind, build_optimizer, matrices_and_others
from model.schedule import learning_rate
from model.transformer import Transformer
from stages.pretrain import DECAY_FRACTION, Config
from stages.pretrain.loop import train
from stages.text.token_shards import TokenShards
from stages.tune.journal import EVENTS, read_journal
from tests.dist import ranks

STEPS, ROWS, LENGTH, SEED = 50, 8, 16, 5
RATE, CLIP = 3e-3, 0.55
LOSS_TOLERANCE = NORM_TOLERANCE = 1e-5

Shape = dict[str, Any]
Course = tuple[list[float], list[float], float]
"""Losses and gradient norms by step, and the held-out loss after training."""
DATA, TENSOR, ZERO = (1, 2, 4), (1, 2), (0, 1, 2, 3)
GRID: list[Shape] = [
    {"workers": data * tensor, "tensor": tensor, "zero": zero}
    for data in DATA
    for tensor in TENSOR
    for zero in ZERO
]
PIPELINE: list[Shape] = [
    {"workers": data * 2, "pipeline": 2, "zero": zero} for data in DATA for zero in (0, 1)
]
SEQUENCE: list[Shape] = [
    {"workers": data * 2, "sequence": 2, "zero": zero} for data in DATA for zero in (0, 1, 2)
]
OPTIONS: list[Shape] = [
    {"workers": 1, "zero": 0, "activation_checkpointing": True},
    {"workers": 2, "zero": 3, "activation_checkpointing": True},
    {"workers": 2, "tensor": 2, "zero": 3, "activation_checkpointing": True},
    {"workers": 2, "pipeline": 2, "zero": 1, "activation_checkpointing": True},
    {"workers": 2, "sequence": 2, "zero": 2, "activation_checkpointing": True},
    {"workers": 2, "zero": 1, "offload_optimizer": "cpu"},
    {"workers": 2, "zero": 3, "offload_optimizer": "cpu", "offload_weights": "cpu"},
    {"workers": 3, "zero": 3, "rows": 1},  # one of three groups has a row less, and an empty pass
]
UNTIED: list[Shape] = [
    {"workers": 2, "zero": 3},
    {"workers": 2, "tensor": 2, "zero": 1},
    {"workers": 2, "pipeline": 2, "zero": 0},
    {"workers": 2, "pipeline": 2, "zero": 1},
]
EXPERTS: list[Shape] = [
    {"workers": 2, "zero": 0},
    {"workers": 2, "zero": 1, "activation_checkpointing": True},
    {"workers": 4, "zero": 3},
    {"workers": 3, "zero": 1, "rows": 1},
    {"workers": 2, "sequence": 2, "zero": 1},
]
EXPERT_SIZES = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "scoring_func": "sigmoid",
}  # fmt: skip
MUON: list[Shape] = [
    *({"workers": data, "zero": zero} for data in DATA for zero in ZERO),
    {"workers": 2, "pipeline": 2, "zero": 0},
    {"workers": 4, "pipeline": 2, "zero": 1},
    {"workers": 2, "sequence": 2, "zero": 0},
    {"workers": 2, "sequence": 2, "zero": 1},
    {"workers": 2, "sequence": 2, "zero": 2},
    {"workers": 2, "zero": 1, "activation_checkpointing": True},
    {"workers": 2, "zero": 3, "activation_checkpointing": True},
]
CHANGES: list[tuple[Shape, Shape]] = [
    ({"workers": 2, "tensor": 2, "zero": 3}, {"workers": 2, "pipeline": 2, "zero": 1}),
    ({"workers": 2, "pipeline": 2, "zero": 0}, {"workers": 2, "sequence": 2, "zero": 2}),
    ({"workers": 2, "sequence": 2, "zero": 2}, {"workers": 4, "tensor": 2, "zero": 0}),
    ({"workers": 4, "pipeline": 2, "zero": 1}, {"workers": 1, "zero": 3}),
]


def model_shape(**fields: Any) -> ModelConfig:
    """Two layers whose heads two ranks can share."""
    sizes = {
        "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    return ModelConfig(**sizes | fields)


def config(parallel: Shape, **fields: Any) -> Config:
    return Config.model_validate(
        {"tokens": "t", "steps": STEPS, "warmup_steps": 2, "batch_tokens": ROWS * LENGTH,
         "sequence_length": LENGTH, "learning_rate": RATE, "clip_norm": CLIP,
         "checkpoint_every": 1000, "parallel": {"rows": 2, **parallel}, **fields}
    )  # fmt: skip


def train_at(
    parallel: Shape, tokens: Path, scratch: Path, shape: ModelConfig | None = None, **fields: Any
) -> Course:
    """The course of the stage's own loop."""
    made = config(parallel, **fields)
    job = {
        "config": made.model_dump(mode="json"),
        "shape": (shape or model_shape()).model_dump(), "seed": SEED,
        "tokens": str(tokens / "train"), "heldout": str(tokens / "heldout"),
        "scratch": str(scratch),
    }  # fmt: skip
    board, log = scratch / "board", scratch / "output"
    board.mkdir(parents=True, exist_ok=True)
    world, gpu = made.parallel.bounds[1], made.parallel.gpu
    ranks.run(world, _train, job, str(board), log=log, limit_s=500, gpu=gpu)
    metrics = json.loads((board / "report.json").read_text())["metrics"]
    lines = read_journal(scratch)
    norms = [line["gradient_norm"] for line in lines]
    _check_flops(lines[-1], tokens, shape or model_shape())
    return [line["loss"] for line in lines], norms, metrics["heldout_loss"]


def _check_flops(line: dict[str, Any], tokens: Path, shape: ModelConfig) -> None:
    """Whatever the parallel shape, a step's FLOPs are those of all its documents, once."""
    batch = TokenShards(tokens / "train").batch(line["step"], ROWS, LENGTH, SEED)
    lengths = document_lengths(batch.document_ids)
    expected = ROWS * LENGTH * packed_flops_per_token(shape, lengths)
    assert line["flops_per_second"] * line["step_seconds"] == pytest.approx(expected)


def _train(job: dict[str, Any], board: str) -> None:
    os.environ["RAYLM_BOARD"] = board
    train(job)


@cache
def reference(tokens: Path, kind: Kind = "adamw", **sizes: Any) -> Course:
    """The same run, batch after whole batch, in one process of plain PyTorch."""
    torch.manual_seed(SEED)
    model = Transformer(model_shape(**sizes))
    optimizer: torch.optim.Optimizer = build_optimizer(model, RATE, 0.1, "muon")
    if kind == "adamw":
        matrices, others = matrices_and_others(model)
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
            betas=(0.9, 0.95), fused=True,
        )  # fmt: skip
    losses, norms = [], []
    for step in range(STEPS):
        rate = learning_rate(step, STEPS, RATE, 2, "wsd", decay_fraction=DECAY_FRACTION)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _mean_loss(model, TokenShards(tokens / "train"), ROWS, step, SEED)
        optimizer.zero_grad()
        loss.backward()
        limit = CLIP if kind == "adamw" else math.inf
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), limit).item())
        optimizer.step()
        balance_experts(model)
        losses.append(loss.item())
    heldout = TokenShards(tokens / "heldout")
    with torch.no_grad():
        return losses, norms, _heldout(model, heldout)


def _mean_loss(
    model: Transformer, shards: TokenShards, rows: int, step: int, seed: int
) -> torch.Tensor:
    batch = shards.batch(step, rows, LENGTH, seed)
    ids, labels, documents = map(
        torch.from_numpy, (batch.input_ids, batch.labels, batch.document_ids)
    )
    logits = model(ids, documents).flatten(0, 1)
    return F.cross_entropy(logits, labels.flatten(), ignore_index=-100)


def _heldout(model: Transformer, shards: TokenShards) -> float:
    total, count = 0.0, 0
    for window in range(shards.windows(LENGTH)):
        labels = shards.batch(window, 1, LENGTH, seed=0).labels
        predicted = int((labels >= 0).sum())
        total += _mean_loss(model, shards, 1, window, 0).item() * predicted
        count += predicted
    return total / count


def name(shape: Shape) -> str:
    return "-".join(f"{key}{value}" for key, value in shape.items())


def check(
    parallel: Shape, tokens: Path, scratch: Path, kind: Kind = "adamw", **sizes: Any
) -> tuple[float, float]:
    """Assert that a shape trains as one process does; the largest differences found."""
    expected = reference(tokens, kind, **sizes)
    assert max(expected[1]) > CLIP > min(expected[1])  # some steps clip, some do not
    found = train_at(parallel, tokens, scratch, model_shape(**sizes), optimizer=kind)
    return compare(found, expected)


def check_change(first: Shape, then: Shape, tokens: Path, scratch: Path) -> tuple[float, float]:
    """Assert that a run begun at one shape and continued at another trains as one process does.

    The first is shorter: the second takes it up where its learning rate begins to fall.
    """
    train_at(first, tokens, scratch, steps=STEPS // 2)
    found = compare(train_at(then, tokens, scratch), reference(tokens))
    events = read_journal(scratch, EVENTS)
    resumed = [event["step"] for event in events if event["event"] == "resumed"]
    assert resumed == [config(first, steps=STEPS // 2).decay_start]
    return found


def told(shape: str, differences: tuple[float, float]) -> str:
    """The largest differences of loss and gradient norm, to be printed."""
    loss, norm = differences
    return f"{shape}: loss within {loss:.1e}, gradient norm within {norm:.1e} relative"


def compare(found: Course, expected: Course) -> tuple[float, float]:
    """Assert that two courses agree; the largest differences of loss and (relative) norm."""
    for mine, theirs, limits in (
        (found[0], expected[0], {"abs": LOSS_TOLERANCE, "rel": 0}),
        (found[1], expected[1], {"rel": NORM_TOLERANCE}),
        (found[2], expected[2], {"abs": LOSS_TOLERANCE, "rel": 0}),
    ):
        assert mine == pytest.approx(theirs, **limits), f"{mine} instead of {theirs}"
    worst = max(abs(a - b) for a, b in zip(found[0], expected[0], strict=True))
    return worst, max(abs(a / b - 1) for a, b in zip(found[1], expected[1], strict=True))
