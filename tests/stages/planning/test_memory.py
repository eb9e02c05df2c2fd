"""The plan's memory against what PyTorch really holds, and ZeRO's divisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from model.loss import cross_entropy
from model.optimizer import build_optimizer
from model.transformer import Transformer
from stages.planning.buckets import bucket_bytes
from stages.planning.memory import Memory, training_memory
from stages.planning.run_shape import RunShape
from stages.tune.decoder import autocast

Build = Callable[..., RunShape]


def batch(run: RunShape) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (run.rows, run.config.sequence_length)
    ids = torch.randint(0, run.model.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    return ids, torch.zeros(shape, dtype=torch.long)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"hidden_size": 192, "head_dim": 24, "intermediate_size": 256},
        {"num_key_value_heads": 8, "num_hidden_layers": 2, "intermediate_size": 1024},
    ],
)
@pytest.mark.parametrize(("precision", "length"), [("float32", 128), ("bfloat16", 300)])
def test_activations_are_what_autograd_keeps(
    run_shape: Build, shape: dict[str, Any], precision: str, length: int
) -> None:
    run = run_shape(
        {"max_position_embeddings": 512, **shape}, precision=precision, sequence_length=length,
        batch_tokens=length * 8, parallel={"rows": 4},
    )  # fmt: skip
    assert training_memory(run).activations == pytest.approx(kept_bytes(run), rel=0.05)


def test_bfloat16_weights_are_kept_beside_the_others(run_shape: Build) -> None:
    """With few tokens what autograd keeps is mostly that."""
    shape = {"hidden_size": 256, "intermediate_size": 1024, "vocab_size": 64}
    run = run_shape(
        shape, precision="bfloat16", sequence_length=16, batch_tokens=16, parallel={"rows": 1}
    )
    kept = kept_bytes(run)
    assert 2 * run.matrices > 0.5 * kept
    assert training_memory(run).activations == pytest.approx(kept, rel=0.05)


def kept_bytes(run: RunShape) -> int:
    """What autograd keeps of a forward pass, besides the weights that are there anyway."""
    model = Transformer(run.model)
    ids, documents = batch(run)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        autocast(run.precision == "bfloat16", ids.device),
    ):
        hidden = model.hidden(ids, documents)
    assert hidden.requires_grad
    return sum(kept.values())


def test_the_total_is_the_peak_of_a_step(run_shape: Build) -> None:
    """Against PyTorch's own tracker of live tensors; gradients that outlive a step count too."""
    from torch.distributed._tools.mem_tracker import MemTracker

    run = run_shape(parallel={"rows": 4})
    model = Transformer(run.model)
    optimizer = build_optimizer(model, 1e-3, 0.1)
    ids, documents = batch(run)
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        for _ in range(2):
            loss, _ = cross_entropy(model.hidden(ids, documents), model.lm_head.weight, ids)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            tracker.reset_mod_stats()
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert training_memory(run).total == pytest.approx(peak, rel=0.1)


def test_zero_divides_what_it_says(run_shape: Build) -> None:
    def parts(zero: int, workers: int = 4) -> Memory:
        return training_memory(run_shape(parallel={"workers": workers, "zero": zero, "rows": 1}))

    number = run_shape().model.parameters()
    assert parts(0).optimizer == 8 * number
    assert parts(1).optimizer == 12 * number / 4
    assert parts(1).gradients == parts(0).gradients == 4 * number
    assert parts(2).gradients == parts(3).gradients == 4 * number / 4
    assert parts(2).weights == 4 * number
    assert parts(3).weights == 4 * number / 4


def test_ranks_that_hold_the_same_weights_divide_them(run_shape: Build) -> None:
    """A sequence group's do, as data ranks do; of a tensor group each has the whole tables."""
    run = run_shape(parallel={"workers": 4, "sequence": 2, "zero": 2, "rows": 1})
    assert training_memory(run).gradients == 4 * run.model.parameters() / 4
    half = run_shape(parallel={"workers": 2, "tensor": 2, "rows": 1})
    tables = 1024 * 128
    assert training_memory(half).weights == 4 * (half.model.parameters() - tables) / 2 + 4 * tables


def test_checkpointing_and_parallel_degrees_lower_activations(run_shape: Build) -> None:
    def activations(**parallel: Any) -> float:
        shape = {"num_key_value_heads": 4}
        return training_memory(run_shape(shape, parallel={"rows": 2, **parallel})).activations

    plain = activations()
    assert activations(activation_checkpointing=True) < 0.5 * plain
    assert activations(workers=2, sequence=2) == pytest.approx(plain / 2)
    assert 0.5 * plain < activations(workers=2, tensor=2) < plain


def test_the_loss_holds_as_many_logits_as_planned() -> None:
    from model import loss
    from stages.planning import memory

    assert memory.CHUNK_TOKENS == loss.CHUNK_TOKENS
    assert memory.CHUNK_LOGITS == loss.CHUNK_LOGITS


def test_attention_keeps_as_many_weights_as_planned() -> None:
    from model import cpu_attention
    from stages.planning import memory

    assert memory.ATTENTION_BLOCK == cpu_attention.BLOCK


def test_buckets_are_those_that_deepspeed_allocates(run_shape: Build) -> None:
    """Of 300 million parameters, more than a bucket: two at ZeRO 1 and 2 on a GPU, one at 3."""
    large = {"vocab_size": 300_000, "hidden_size": 1000, "num_hidden_layers": 1}
    bucket = 4.0 * 200_000_000

    def held(zero: int, workers: int, gpu: bool = True, shape: dict[str, Any] = large) -> float:
        return bucket_bytes(
            run_shape(shape, parallel={"workers": workers, "zero": zero, "rows": 1, "gpu": gpu})
        )

    assert [held(zero, 1) for zero in range(4)] == [0, 2 * bucket, 2 * bucket, bucket]
    assert [held(zero, 4) for zero in range(1, 4)] == [2 * bucket, 2 * bucket, bucket]
    assert held(3, 1, gpu=False) == held(1, 4, gpu=False) == held(2, 4, gpu=False) == bucket
    assert held(0, 4) == 4.0 * run_shape(large).model.parameters(), "half a billion at ZeRO 0"
    small = 4.0 * run_shape().model.parameters()
    assert held(2, 1, shape={}) == 2 * small
    assert held(3, 2, gpu=False, shape={}) == small


def test_buckets_are_as_large_as_planned() -> None:
    from stages.planning import buckets
    from stages.tune import engine

    assert buckets.BUCKET_NUMBERS == engine.BUCKET_NUMBERS
