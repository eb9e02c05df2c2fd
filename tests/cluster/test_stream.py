"""How items are shared out to workers."""

from __future__ import annotations

from cluster.stream import bundles, stream


def test_bundles_hold_every_item_once_heaviest_first() -> None:
    weights = [1.0, 50.0, 2.0, *[0.5] * 40, 30.0]
    found = bundles(weights, workers=2)
    assert sorted(number for bundle in found for number in bundle) == list(range(len(weights)))
    assert found[0] == [1] and found[1] == [len(weights) - 1]
    full = sum(weights) / 16
    for bundle in found:
        assert len(bundle) == 1 or sum(weights[n] for n in bundle) < full + weights[bundle[-1]]
    assert bundles([1.0] * 3, workers=2) == [[0], [1], [2]]


def test_without_workers_items_are_done_in_their_order_here() -> None:
    done: list[str] = []

    def work(item: str) -> str:
        done.append(item)
        return item

    assert list(stream(lambda: work, "abc", 0)) == [0, 1, 2]
    assert done == ["a", "b", "c"]
