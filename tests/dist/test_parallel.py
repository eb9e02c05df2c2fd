"""A sample of the parallel shapes against plain PyTorch; the whole family is in tests/parity."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.dist import ranks
from tests.dist.shapes import GRID, PIPELINE, SEQUENCE, Shape, check, name

pytestmark = pytest.mark.dist

_draw = random.Random(7)
SAMPLE = [
    _draw.choice([s for s in GRID if s["workers"] == 2 and s["tensor"] == 1]),
    {"workers": 2, "tensor": 2, "zero": 3},
    _draw.choice([s for s in PIPELINE if s["workers"] == 2]),
    _draw.choice([s for s in SEQUENCE if s["workers"] == 2]),
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ranks.write_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.mark.parametrize("shape", SAMPLE, ids=name)
def test_a_shape_trains_as_one_process(shape: Shape, tokens: Path, tmp_path: Path) -> None:
    check(shape, tokens, tmp_path)
