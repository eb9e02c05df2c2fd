"""The pretraining stage on GPUs: the courses that plain PyTorch takes on a processor, and hangs.

What one GPU can show runs on one; the shapes and NCCL's hang need two.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch


from cluster.watch import HANG_EXIT
from tests.dist import faults, ranks
from tests.dist.shapes import Shape, name, reference, train_at
from tests.dist.shapes import model_shape as small_shape
from tests.dist.left_behind import losses
from tests.dist.test_faults import hang, spoil_two_steps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.dist,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
]
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL wants a GPU a rank")

LOSS, NORM = 2e-3, 2e-2
"""After fifty steps sums in another order have become this much (absolute, relative)."""
ONE: list[Shape] = [
    {"workers": 1, "zero": 0, "compiled": False},
    {"workers": 1, "zero": 0, "compiled": True},
    {"workers": 1, "zero": 1, "compiled": True, "activation_checkpointing": True},
    {"workers": 1, "zero": 2, "offload_optimizer": "cpu"},
    {"workers": 1, "zero": 3},
    {"workers": 1, "zero": 3, "offload_optimizer": "cpu", "offload_weights": "cpu"},
]
FLAT: Shape = {"workers": 1, "zero": 1, "gpu": True}
TWO: list[Shape] = [
    *({"workers": 2, "zero": zero} for zero in range(4)),
    *({"workers": 2, "tensor": 2, "zero": zero} for zero in (0, 3)),
    {"workers": 2, "pipeline": 2, "zero": 1},
    {"workers": 2, "sequence": 2, "zero": 2},
]
WIDE = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32,
}  # fmt: skip
"""Widths that float8's tensor cores take."""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ranks.write_tokens(tmp_path_factory.mktemp("tokens"))


def _check(parallel: Shape, tokens: Path, scratch: Path) -> None:
    found = train_at({**parallel, "gpu": True}, tokens, scratch)
    expected = reference(tokens)
    assert found[0] == pytest.approx(expected[0], abs=LOSS, rel=0)
    assert found[1] == pytest.approx(expected[1], rel=NORM)
    assert found[2] == pytest.approx(expected[2], abs=LOSS, rel=0)


@pytest.mark.parametrize("parallel", ONE, ids=name)
def test_one_gpu_trains_as_a_processor(parallel: Shape, tokens: Path, tmp_path: Path) -> None:
    _check(parallel, tokens, tmp_path)


@pytest.mark.parametrize("precision", ["bfloat16", "float8"])
def test_narrow_numbers_learn_as_wide_ones(precision: str, tokens: Path, tmp_path: Path) -> None:
    if precision == "float8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no 8-bit floats")

    def course(wanted: str) -> Any:
        parallel = {"workers": 1, "zero": 1, "gpu": True}
        shape = small_shape(**WIDE)
        return train_at(parallel, tokens, tmp_path / wanted, shape, precision=wanted)

    narrow, wide = course(precision), course("float32")
    assert narrow[0][0] == pytest.approx(wide[0][0], abs=0.02)
    assert narrow[2] == pytest.approx(wide[2], abs=0.1) and narrow[0][-1] < narrow[0][0] - 0.1


def test_a_killed_run_goes_on(tokens: Path, tmp_path: Path) -> None:
    for place, steps in (("killed", (7, 3)), ("whole", ())):
        there = ranks.job(tokens, tmp_path / place, parallel={"rows": 4, **FLAT})
        if steps:
            (process,) = ranks.start(
                1, faults.die, there, 0, *steps, log=tmp_path / "killed.log", gpu=True
            )
            assert ranks.finish([process], limit_s=300) == [-signal.SIGKILL]
        ranks.run(1, faults.train, there, log=tmp_path / f"{place}.log", gpu=True)
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=LOSS)


def test_a_refused_step_changes_nothing(tokens: Path, tmp_path: Path) -> None:
    spoil_two_steps(tokens, tmp_path, "nan", FLAT, "adamw")


def test_a_gpu_that_never_answers_becomes_an_error(tokens: Path, tmp_path: Path) -> None:
    """The main thread waits in CUDA's own code, as it does for a collective that never ends."""
    there = ranks.job(tokens, tmp_path, watch={"hang_s": 5.0}, parallel={"rows": 4, **FLAT})
    started = ranks.start(1, faults.spin, there, 5, log=tmp_path / "log", gpu=True)
    assert ranks.finish(started, limit_s=200) == [HANG_EXIT]
    said = (tmp_path / "watch" / "hang.txt").read_text()
    assert "rank 0" in said and "loop.py" in said


@two_gpus
@pytest.mark.parametrize("parallel", TWO, ids=name)
def test_two_gpus_train_as_a_processor(parallel: Shape, tokens: Path, tmp_path: Path) -> None:
    _check(parallel, tokens, tmp_path)


@two_gpus
def test_a_hang_on_nccl_becomes_an_error(tokens: Path, tmp_path: Path) -> None:
    print(f"a hang was an error after {hang(tokens, tmp_path, {}, gpu=True):.1f} s")
