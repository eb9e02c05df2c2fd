"""Muon's plan: its products as torch counts them, and which rank takes which matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.config import ModelConfig
from model.optimizer import matrices_and_others, orthogonalize
from model.transformer import Transformer
from stages.planning import buckets, newton_schulz
from stages.planning.communication import step_communication
from stages.planning.machine import Machine
from stages.planning.memory import training_memory
from stages.planning.newton_schulz import (
    gathered_bytes,
    iteration_flops,
    newton_schulz_flops,
    scale,
    shared_flops,
)
from stages.planning.roofline import step_time
from stages.planning.run_shape import RunShape
from stages.planning.weights import layer_matrices
from stages.planning.work import step_work

Build = Callable[..., RunShape]
LAYER = [(256, 128), (64, 128), (64, 128), (128, 256), (384, 128), (384, 128), (128, 384)]
SHAPES: list[dict[str, Any]] = [
    {},
    {"num_experts": 4, "moe_intermediate_size": 64, "first_k_dense_replace": 1},
    {"kv_lora_rank": 16, "q_lora_rank": 24, "num_key_value_heads": 4},
    {"kv_lora_rank": 16, "num_key_value_heads": 4},
]


def muon(build: Build, workers: int = 1, zero: int = 0, **parallel: Any) -> RunShape:
    return build(
        {"num_hidden_layers": 2}, optimizer="muon",
        parallel={"workers": workers, "zero": zero, "rows": 1, **parallel},
    )  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_matrices_are_the_models(shape: dict[str, Any]) -> None:
    model = ModelConfig(**shape)
    real = [tuple(matrix.shape) for matrix in matrices_and_others(Transformer(model))[0]]
    planned = [
        size if size[0] > 1 else size[1:]
        for layer in range(model.num_hidden_layers)
        for size in layer_matrices(model, layer)
    ]
    assert sorted(planned) == sorted(real)


@pytest.mark.parametrize("matrix", [(64, 64), (96, 32), (32, 96)])
def test_products_are_what_torch_counts(matrix: tuple[int, int]) -> None:
    with FlopCounterMode(display=False) as counter:
        orthogonalize(torch.randn(matrix), newton_schulz.ITERATIONS)
    assert iteration_flops(matrix) == counter.get_total_flops()


def test_learning_rates_are_muons() -> None:
    from stages.tune.muon import _scale

    for matrix in LAYER:
        assert scale(*matrix) == _scale(torch.empty(matrix))


@pytest.mark.parametrize("ranks", [1, 2, 4, 5, 20, 50])
def test_a_rank_takes_what_its_part_of_the_array_touches(ranks: int) -> None:
    """Number by number, in a small group."""
    group = [(6, 5), (6, 5), (4, 5), (3, 5), (1, 5)]
    owner = [index for index, (rows, columns) in enumerate(group) for _ in range(rows * columns)]
    touched: list[set[int]] = [set() for _ in range(ranks)]
    for position, index in enumerate(owner):
        touched[position * ranks // len(owner)].add(index)
    expected = [sum(iteration_flops(group[index]) for index in own) for own in touched]
    assert shared_flops(group, ranks) == expected


def test_every_rank_takes_all_without_zero_and_its_part_with_it(run_shape: Build) -> None:
    whole = 2 * sum(map(iteration_flops, LAYER))
    assert newton_schulz_flops(run_shape()) == 0
    assert newton_schulz_flops(muon(run_shape)) == whole
    assert newton_schulz_flops(muon(run_shape, workers=4)) == whole
    assert newton_schulz_flops(muon(run_shape, workers=2, pipeline=2)) == whole / 2
    for zero in (1, 2):
        assert newton_schulz_flops(muon(run_shape, workers=2, zero=zero)) == pytest.approx(
            whole / 2, rel=0.5
        )
        assert newton_schulz_flops(muon(run_shape, workers=64, zero=zero)) < whole / 2


def test_at_zero_3_ranks_wait_for_the_largest_of_each_round(
    run_shape: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played through: chunks of a bucket, of which four ranks take one matrix each in turn."""
    run = muon(run_shape, workers=4, zero=3)
    groups: dict[float, list[tuple[int, int]]] = {}
    for matrix in LAYER * 2:
        groups.setdefault(scale(*matrix), []).append(matrix)

    def waited(bucket: float) -> float:
        total = 0.0
        for group in groups.values():
            left = sorted(group, reverse=True)
            while left:
                taken = [left.pop(0)]
                numbers = taken[0][0] * taken[0][1]
                while left and numbers + left[0][0] * left[0][1] <= bucket:
                    numbers += left[0][0] * left[0][1]
                    taken.append(left.pop(0))
                for start in range(0, len(taken), 4):
                    total += max(map(iteration_flops, taken[start : start + 4]))
        return total

    assert newton_schulz_flops(run) == waited(2e8)
    monkeypatch.setattr(newton_schulz, "BUCKET_NUMBERS", 2 * 384 * 128)
    assert newton_schulz_flops(run) == waited(2 * 384 * 128) > waited(2e8)


def test_a_step_takes_the_products_too(run_shape: Build) -> None:
    machine = Machine(
        name="laptop", products=1e11, attention=5e10, bandwidth=1e10, streaming=1e10, memory=8e9,
        link=5e9, network=1e9, per_node=2, kernel_s=0.0, peak=1e11,
    )  # fmt: skip
    run = muon(run_shape)
    time = step_time(run, machine)
    assert step_work(run).newton_schulz_flops == 2 * sum(map(iteration_flops, LAYER))
    assert time.newton_schulz == 2 * sum(map(iteration_flops, LAYER)) / 1e11
    adamw = run_shape({"num_hidden_layers": 2}, parallel={"rows": 1})
    assert time.total == pytest.approx(step_time(adamw, machine).total + time.newton_schulz)


def test_zero_3_sums_gradients_whole_and_hands_updates_round(run_shape: Build) -> None:
    """64 rows on two ranks are 32 micro-batches. What is exchanged of Muon's own: gradients and
    momentums before, updates and momentums after, of the largest of a round for every rank.
    """
    run = muon(run_shape, workers=2, zero=3)
    adamw = run_shape({"num_hidden_layers": 2}, parallel={"workers": 2, "zero": 3, "rows": 1})
    size = 4.0 * run.model.parameters()
    assert step_communication(adamw).gradients == 0.5 * 32 * size
    assert step_communication(run).gradients == 0.5 * 32 * 2 * size
    assert step_communication(adamw).updates == 0
    # rounds are pairs of one size: two ranks, two layers
    matrices = 2 * sum(rows * columns for rows, columns in LAYER)
    assert gathered_bytes(run) == 2 * 4.0 * (matrices + matrices)
    assert step_communication(run).updates == 0.5 * gathered_bytes(run)


def test_a_matrix_larger_than_a_bucket_is_scattered(
    run_shape: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = muon(run_shape, workers=2, zero=3)
    monkeypatch.setattr(buckets, "BUCKET_NUMBERS", 100_000)  # the table has 131,072
    size, table = 4.0 * run.model.parameters(), 4.0 * 1024 * 128
    assert step_communication(run).gradients == 0.5 * 32 * (2 * size - table)


def test_what_is_handed_round_is_in_memory_once_activations_have_gone(run_shape: Build) -> None:
    """One row of 2 tokens on 64 ranks, which have a few matrices between them."""
    fields: dict[str, Any] = {"sequence_length": 2, "batch_tokens": 128, "optimizer": "muon"}
    run = run_shape(**fields, parallel={"workers": 64, "zero": 3, "rows": 1})
    memory = training_memory(run)
    largest = 384 * 128
    handed = 4.0 * 2 * 64 * largest
    assert memory.activations + memory.logits + memory.buffers > handed
    second = training_memory(run_shape(**fields, parallel={"workers": 64, "zero": 2, "rows": 1}))
    assert second.activations + second.logits + second.buffers < handed
