"""A sample of the parallel shapes against plain PyTorch; the whole family is in tests/parity."""

from __future__ import annotations

import random
from itertools import product
from math import prod
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.dist import ranks
from tests.dist.shapes import DATA, GRID, PIPELINE, SEQUENCE, ZERO, Shape, check, config, name

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


def test_every_other_combination_is_refused_by_name() -> None:
    """Each degree 1 or 2, data parallel 1, 2 and 4, every ZeRO stage: trained above, or refused."""
    degrees = ("tensor", "pipeline", "sequence")

    def key(shape: Shape) -> tuple[int, ...]:
        return tuple(shape.get(field, 1) for field in ("workers", "zero", *degrees))

    trained = {key(shape) for shape in (*GRID, *PIPELINE, *SEQUENCE)}
    accepted = set()
    for data, zero, *sizes in product(DATA, ZERO, (1, 2), (1, 2), (1, 2)):
        used = dict(zip(degrees, sizes, strict=True))
        shape = {"workers": data * prod(sizes), "zero": zero, **used}
        if key(shape) in trained:
            accepted.add(key(config(shape).parallel.model_dump()))
            continue
        with pytest.raises(ValidationError) as caught:
            config(shape)
        said = str(caught.value)
        assert all(f"parallel.{field} 2" in said for field, size in used.items() if size > 1)
    assert accepted == trained and len(trained) == 24 + 6 + 9
