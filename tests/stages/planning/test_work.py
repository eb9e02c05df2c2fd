"""The plan's arithmetic against what PyTorch really does, operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from model.transformer import Transformer
from stages.hardware import Hardware
from stages.planning import communication
from stages.planning.communication import step_communication
from stages.planning.machine import planned_machine
from stages.planning.roofline import step_time
from stages.planning.run_shape import RunShape
from stages.planning.work import layer_passes, step_work

Build = Callable[..., RunShape]
PRODUCTS = ("mm", "bmm", "attention", "view", "transpose", "embedding")


class Passes(TorchDispatchMode):
    """Counts bytes read and written by operations that are not products."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = operation(*args, **(kwargs or {}))
        returns = operation._schema.returns
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if not view and not any(name in str(operation) for name in PRODUCTS):
            for leaf in tree_leaves((args, kwargs, out)):
                if isinstance(leaf, torch.Tensor):
                    self.bytes += leaf.numel() * leaf.element_size()
        return out


def passes_of(run: RunShape) -> tuple[int, int]:
    """(forward, backward) bytes of a whole model."""
    model = Transformer(run.model)
    ids = torch.zeros(run.rows, run.config.sequence_length, dtype=torch.long)
    with Passes() as forward:
        hidden = model.hidden(ids)
    with Passes() as backward:
        hidden.sum().backward()
    return forward.bytes, backward.bytes


@pytest.mark.parametrize("shape", [{}, {"hidden_size": 64, "intermediate_size": 512}])
def test_passes_of_a_layer_are_what_its_operations_move(
    run_shape: Build, shape: dict[str, Any]
) -> None:
    one = passes_of(run_shape({**shape, "num_hidden_layers": 1}, parallel={"rows": 2}))
    run = run_shape({**shape, "num_hidden_layers": 2}, parallel={"rows": 2})
    two = passes_of(run)
    planned = layer_passes(run)
    for side in (0, 1):
        assert planned[side] == pytest.approx((two[side] - one[side]) / run.tokens, rel=0.1)


def test_products_are_what_torch_counts(run_shape: Build) -> None:
    run = run_shape(parallel={"rows": 2}, batch_tokens=256)
    model = Transformer(run.model)
    ids = torch.zeros(2, 128, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model.hidden(ids).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counts.items() if "attention" not in str(op))
    head = 6.0 * ids.numel() * run.model.vocab_size * run.model.hidden_size
    assert step_work(run).product_flops - head == pytest.approx(products, rel=0.02)


def test_a_second_forward_pass_costs_a_third_more_below_the_head(run_shape: Build) -> None:
    run = run_shape()
    plain = step_work(run).product_flops
    again = step_work(run_shape(parallel={"activation_checkpointing": True})).product_flops
    head = 6.0 * 64 * 128 * run.model.vocab_size * run.model.hidden_size
    assert again - head == pytest.approx((plain - head) * 4 / 3)


def test_a_compiled_layer_passes_through_memory_less_often(run_shape: Build) -> None:
    """By default on GPUs, where DeepSpeed lets a compiler in; what is not a layer's stays."""

    def passes(**parallel: Any) -> float:
        fields = {"workers": 2, "rows": 2, "gpu": True, **parallel}
        return step_work(run_shape(precision="bfloat16", parallel=fields)).passes_bytes

    run = run_shape(precision="bfloat16", parallel={"workers": 2, "rows": 2, "gpu": True})
    layers = run.step_tokens * run.layers * sum(layer_passes(run))
    eager = passes(compiled=False)
    assert passes() == passes(compiled=True) == pytest.approx(eager - 0.8 * layers)
    assert passes(zero=2) == passes() and passes(zero=3) == eager
    assert passes(gpu=False, compiled=True) == passes(gpu=False)


def test_the_shape_that_was_measured_on_a_gpu(run_shape: Build) -> None:
    """`tests.bench.mfu`'s: 0.51 in bfloat16 throughout; in the stage some numbers are wider."""
    shape = {
        "vocab_size": 32_768, "hidden_size": 2048, "intermediate_size": 6144,
        "num_hidden_layers": 20, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "max_position_embeddings": 4096,
    }  # fmt: skip
    model = {"max_position_embeddings": 4096}

    def utilisation(compiled: bool) -> float:
        run = run_shape(
            shape, model=model, sequence_length=4096, batch_tokens=4096 * 16,
            precision="bfloat16", parallel={"rows": 4, "gpu": True, "compiled": compiled},
        )  # fmt: skip
        machine = planned_machine(Hardware(device="h100"), run)
        flops = run.model.flops_per_token(4096) * run.config.batch_tokens
        return flops / step_time(run, machine).total / machine.peak

    assert 0.48 < utilisation(True) < 0.51
    assert utilisation(False) < 0.38


def test_what_workers_send(run_shape: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 rows over 4 workers in micro-batches of 2 are two; float32. `tests/dist` counts it."""
    size = 4 * run_shape().model.parameters()
    tables = 4 * 1024 * 128

    def sent(**parallel: Any) -> Any:
        return step_communication(
            run_shape(batch_tokens=128 * 16, parallel={"workers": 4, "rows": 2, **parallel})
        )

    assert sent(workers=1).total == 0
    assert sent(zero=0).total == 2 * 0.75 * size
    assert sent(zero=1).total == 3 * 0.75 * size
    assert sent(zero=2).gradients == 2 * 2 * 0.75 * size
    assert (sent(zero=3).gradients, sent(zero=3).weights) == (2 * 0.75 * size,) * 2
    monkeypatch.setattr(communication, "LIVE_NUMBERS", 0)
    assert sent(zero=3).weights == 4 * 0.75 * size
    tokens, width, layers = 128 * 8, 128, 4  # a data rank's half of the batch
    assert sent(tensor=2).tensor == 2 * 0.5 * tokens * width * 4 * layers * 7
    assert sent(tensor=2).gradients == 2 * 0.5 * ((size - tables) / 2 + tables)
    assert sent(pipeline=2).pipeline == tokens * (width * 4 + 8)
    assert sent(pipeline=4).pipeline == 2 * tokens * (2 * width * 4 + 8)
    assert sent(sequence=2).gradients == 2 * 0.75 * size
    heads = 4 * 32 * (8 + 2 + 2 + 8)  # of queries, keys, values and outputs
    assert sent(sequence=2).sequence == 0.5 * tokens / 2 * heads * layers * 2


def test_a_tensor_rank_multiplies_by_the_whole_head(run_shape: Build) -> None:
    alone = step_work(run_shape(parallel={"rows": 2}))
    half = step_work(run_shape(parallel={"rows": 2, "workers": 2, "tensor": 2}))
    head = 6.0 * 128 * 64 * 1024 * 128
    assert half.product_flops - head == pytest.approx((alone.product_flops - head) / 2)
