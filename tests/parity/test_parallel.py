"""The pretraining loop at every parallel shape that DeepSpeed supports, against plain PyTorch.

Fifty steps with clipping, accumulation and documents in float32: losses within 1e-5, the norm of
the gradient within 1e-5 relative, and the held-out loss of the final weights.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dist import ranks
from tests.dist.shapes import (
    CHANGES,
    EXPERT_SIZES,
    EXPERTS,
    GRID,
    MUON,
    OPTIONS,
    PIPELINE,
    SEQUENCE,
    UNTIED,
    Shape,
    check,
    check_change,
    name,
    told,
)

pytestmark = [pytest.mark.parity, pytest.mark.dist]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ranks.write_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.mark.parametrize("shape", [*GRID, *PIPELINE, *SEQUENCE, *OPTIONS], ids=name)
def test_a_shape_trains_as_one_process(shape: Shape, tokens: Path, tmp_path: Path) -> None:
    print(told(name(shape), check(shape, tokens, tmp_path)))


@pytest.mark.parametrize("shape", UNTIED, ids=name)
def test_with_a_head_of_its_own(shape: Shape, tokens: Path, tmp_path: Path) -> None:
    print(told(f"untied {name(shape)}", check(shape, tokens, tmp_path, tie_word_embeddings=False)))


@pytest.mark.parametrize("shape", EXPERTS, ids=name)
def test_with_experts(shape: Shape, tokens: Path, tmp_path: Path) -> None:
    print(told(f"experts {name(shape)}", check(shape, tokens, tmp_path, **EXPERT_SIZES)))


@pytest.mark.parametrize("shape", MUON, ids=name)
def test_with_muon(shape: Shape, tokens: Path, tmp_path: Path) -> None:
    print(told(f"muon {name(shape)}", check(shape, tokens, tmp_path, kind="muon")))


@pytest.mark.parametrize(
    ("first", "then"), CHANGES, ids=[f"{name(a)}_to_{name(b)}" for a, b in CHANGES]
)
def test_a_run_changes_shape_under_way(
    first: Shape, then: Shape, tokens: Path, tmp_path: Path
) -> None:
    change = f"{name(first)} to {name(then)}"
    print(told(change, check_change(first, then, tokens, tmp_path)))
