"""The keyed permutation is one, for every size."""

from __future__ import annotations

import pytest

from stages.text.permutation import permute


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000])
def test_every_index_has_its_own_image(size: int) -> None:
    assert sorted(permute(i, size, (17, 0)) for i in range(size)) == list(range(size))


def test_keys_give_unrelated_orders() -> None:
    orders = [tuple(permute(i, 500, key) for i in range(500)) for key in ((1, 0), (1, 1), (2, 0))]
    assert len(set(orders)) == 3
    fixed = sum(i == image for i, image in enumerate(orders[0]))
    assert fixed < 8  # a random permutation has one fixed point on average
    following = sum(b - a == 1 for a, b in zip(orders[0], orders[0][1:], strict=False))
    assert following < 8


def test_an_index_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        permute(5, 5, (0,))
