"""The lineage drawing's graph algorithms, and the formats of the page's figures."""

from __future__ import annotations

import re

import pytest

from stages.report.drawing import gate_svg, layers_of, lineage_svg, reduced
from stages.report.page import funnel, show_count, show_interval, show_size, show_time

DIAMOND = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("a", "d"), ("x", "d")]


def test_implied_edges_are_left_out() -> None:
    assert sorted(reduced(DIAMOND)) == [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("x", "d")]


def test_every_edge_goes_down_and_sources_stand_near_their_use() -> None:
    layer = layers_of(["a", "b", "c", "d", "x"], DIAMOND)
    assert layer == {"a": 0, "b": 1, "c": 1, "d": 2, "x": 1}


def test_boxes_do_not_overlap_and_all_edges_are_drawn() -> None:
    names = ["a", "b", "c", "d", "x"]
    svg = lineage_svg(
        {
            "nodes": [{"id": name, "name": name, "kind": "sft"} for name in names],
            "edges": [{"from": a, "to": b} for a, b in DIAMOND],
        }
    )
    boxes = [
        tuple(map(float, box))
        for box in re.findall(r'<rect x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', svg)
    ]
    assert len(boxes) == 5
    for i, (x, y, width, height) in enumerate(boxes):
        for u, v, _, _ in boxes[:i]:
            assert abs(x - u) >= width or abs(y - v) >= height
    assert svg.count('class="edge"') == 5


def test_an_empty_lineage_is_an_empty_drawing() -> None:
    assert lineage_svg({"nodes": [], "edges": []}).endswith("</svg>")


@pytest.mark.parametrize("threshold", [0.5, [0.2, 0.6], 0.7])
def test_gate_marks_lie_inside_the_drawing(threshold: float | list[float]) -> None:
    svg = gate_svg({"value": 0.7, "low": 0.6, "high": 0.9, "threshold": threshold})
    places = [float(p) for p in re.findall(r'(?:x1|x2|cx)="(.*?)"', svg)]
    assert len(places) >= 5 and all(0 <= place <= 150 for place in places)


def test_funnel_goes_down_to_what_was_kept() -> None:
    rows = funnel(
        {
            "in": {"documents": 10},
            "kept": {"documents": 4},
            "dropped": {
                "dedup": {"documents": 3, "reasons": {"near": 1, "exact": 2}},
                "language": {"documents": 2, "reasons": {"fr": 2}},
                "quarantine": {"documents": 1, "reasons": {"truncated": 1}},
            },
        }
    )
    assert [row["name"] for row in rows] == [
        "came in", "quarantine", "language", "dedup", "kept",
    ]  # fmt: skip
    assert [row["left"] for row in rows] == pytest.approx([100, 90, 70, 40, 40])
    assert rows[3]["why"] == "exact, near"


def test_figures_are_readable() -> None:
    assert [show_time(s) for s in (0.04, 9.96, 61, 3725)] == ["0.0 s", "10 s", "1:01 min", "1:02 h"]
    assert [show_count(n) for n in (None, 0, 9999, 52_000, 1_312_000)] == [
        "–", "0", "9,999", "52 K", "1.31 M",
    ]  # fmt: skip
    assert [show_size(n) for n in (10, 2048, 3 << 20, 5 << 30)] == [
        "10 B", "2 KiB", "3 MiB", "5.00 GiB",
    ]  # fmt: skip
    assert show_interval([0.5, 0.25, 0.75], 2) == "0.50 <small>[0.25, 0.75]</small>"
    assert show_interval(None, 2) == "–"
