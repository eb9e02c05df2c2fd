"""A seeded sample of the family of shapes; `make parity` walks all of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model.family import SAMPLE, check_greedy, check_logits_and_gradients, name


@pytest.mark.parametrize("packed", [False, True], ids=["whole", "packed"])
@pytest.mark.parametrize("shape", SAMPLE, ids=name)
def test_logits_loss_and_gradients(shape: dict[str, Any], packed: bool) -> None:
    check_logits_and_gradients(shape, packed)


@pytest.mark.parametrize("shape", SAMPLE, ids=name)
def test_greedy_generation(shape: dict[str, Any]) -> None:
    check_greedy(shape)
