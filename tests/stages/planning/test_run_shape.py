"""The micro-batches of a plan are those that the passes of a run take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch

from stages.planning.run_shape import RunShape
from stages.planning.work import step_work

Build = Callable[..., RunShape]
SHAPES = list(product((1, 2, 3, 5), (1, 2, 3), (1, 3, 4, 7, 16)))


def real_pieces(run: RunShape) -> list[int]:
    """Rows of each piece of the data rank that has most, as `stages.tune.passes` cuts them."""
    parallel = run.config.parallel
    count = parallel.micro_batches(run.config.rows, parallel.data)
    rows = torch.arange(run.config.rows).tensor_split(parallel.data)[0]
    return [len(piece) for piece in rows.tensor_split(count)]


@pytest.mark.parametrize("batch", [60, 90])
@pytest.mark.parametrize(("data", "pipeline", "rows"), SHAPES)
def test_micro_batches_are_the_passes(
    run_shape: Build, batch: int, data: int, pipeline: int, rows: int
) -> None:
    run = run_shape(
        batch_tokens=128 * batch,
        parallel={"workers": data * pipeline, "pipeline": pipeline, "rows": rows},
    )
    pieces = real_pieces(run)
    assert max(pieces) <= rows and (pipeline == 1 or len(set(pieces)) == 1)
    assert (run.accumulation, run.rows) == (len(pieces), max(pieces))
    assert run.step_tokens == 128 * sum(pieces)


def test_ranks_that_share_unevenly_wait_for_the_one_that_has_most(run_shape: Build) -> None:
    """256 rows on 17 ranks are 16 at most, in one pass."""
    run = run_shape(batch_tokens=128 * 256, parallel={"workers": 17, "rows": 16})
    assert (run.accumulation, run.rows) == (1, 16)


def test_work_is_of_the_share_however_it_is_cut(run_shape: Build) -> None:
    """Twelve of sixteen rows at a time are two passes of eight, and no more tokens than sixteen."""
    whole, cut = (
        run_shape(batch_tokens=128 * 16, parallel={"rows": rows, "gpu": True}) for rows in (16, 12)
    )
    assert (cut.accumulation, cut.rows) == (2, 8)
    assert step_work(cut).product_flops == step_work(whole).product_flops


def test_a_sequence_group_divides_the_tokens(run_shape: Build) -> None:
    fields: dict[str, Any] = {"batch_tokens": 128 * 16}
    run = run_shape(**fields, parallel={"workers": 4, "sequence": 2, "rows": 3})
    assert run.step_tokens == 128 * 8 / 2 and run.tokens == 128 * 3 / 2
