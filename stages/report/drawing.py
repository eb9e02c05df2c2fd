"""Drawings made by hand as SVG: the lineage graph in layers, and intervals against a threshold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

BOX_W, BOX_H, GAP_X, GAP_Y, BEND_W = 124, 38, 20, 34, 26
SWEEPS = 8
FAMILIES = {
    "examples": "data",
    "corpus": "data",
    "tokenizer": "data",
    "tokens": "data",
    "pretrain": "model",
    "sft": "model",
    "reward": "model",
    "dpo": "model",
    "ppo": "model",
    "rlvr": "model",
    "distill": "small",
    "quantize": "small",
    "evaluate": "result",
    "report": "result",
}


def layers_of(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Node -> layer: one below its deepest parent's; sources come just above their first use."""
    above: dict[str, list[str]] = defaultdict(list)
    below: dict[str, list[str]] = defaultdict(list)
    for start, end in edges:
        above[end].append(start)
        below[start].append(end)
    layer: dict[str, int] = {}

    def depth(node: str) -> int:
        if node not in layer:
            layer[node] = 1 + max((depth(parent) for parent in above[node]), default=-1)
        return layer[node]

    for node in nodes:
        depth(node)
    for node in nodes:
        if not above[node] and below[node]:
            layer[node] = max(0, min(layer[child] for child in below[node]) - 1)
    return layer


def reduced(edges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The transitive reduction: without the edges that a longer way implies."""
    below: dict[str, set[str]] = defaultdict(set)
    for start, end in edges:
        below[start].add(end)
    reach: dict[str, set[str]] = {}

    def reached(node: str) -> set[str]:
        if node not in reach:
            reach[node] = set().union(*({child} | reached(child) for child in below.get(node, ())))
        return reach[node]

    return [
        (start, end)
        for start, ends in list(below.items())
        for end in sorted(ends)
        if not any(end in reached(other) for other in ends if other != end)
    ]


def _with_bends(
    layer: dict[str, int], edges: Sequence[tuple[str, str]]
) -> tuple[list[list[str]], dict[str, int]]:
    """Each edge as a chain with a bend in every layer it crosses: it passes beside the boxes."""
    chains, bends = [], dict(layer)
    for start, end in edges:
        chain = [start]
        for depth in range(layer[start] + 1, layer[end]):
            chain.append(f"{start}>{end}@{depth}")
            bends[chain[-1]] = depth
        chains.append([*chain, end])
    return chains, bends


def _places(layer: Mapping[str, int], chains: Sequence[Sequence[str]]) -> dict[str, float]:
    """Horizontal centres; each layer in the order of the barycentres of its neighbours."""
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node, depth in layer.items():
        rows[depth].append(node)
    neighbours: dict[str, list[str]] = defaultdict(list)
    for chain in chains:
        for start, end in pairwise(chain):
            neighbours[start].append(end)
            neighbours[end].append(start)
    place: dict[str, float] = {}
    for row in rows:
        _spread(row, place)
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            near = {
                node: sum(place[other] for other in neighbours[node]) / len(neighbours[node])
                if neighbours[node]
                else place[node]
                for node in row
            }
            row.sort(key=lambda node, near=near: near[node])  # type: ignore[misc]
            _spread(row, place)
    return place


def _spread(row: Sequence[str], place: dict[str, float]) -> None:
    """Put a layer's boxes and bends side by side around the middle."""
    widths = [BEND_W if "@" in node else BOX_W + GAP_X for node in row]
    at = -sum(widths) / 2
    for node, width in zip(row, widths, strict=True):
        place[node] = at + width / 2
        at += width


def lineage_svg(lineage: Mapping[str, Any]) -> str:
    """The graph from top to bottom; edges that others imply are left out."""
    nodes = {node["id"]: node for node in lineage["nodes"]}
    edges = reduced([(edge["from"], edge["to"]) for edge in lineage["edges"]])
    chains, layer = _with_bends(layers_of(list(nodes), edges), edges)
    place = _places(layer, chains)
    half = max((abs(x) for x in place.values()), default=0.0) + BOX_W / 2 + GAP_X
    width, height = 2 * half, (max(layer.values(), default=0) + 1) * (BOX_H + GAP_Y)

    def point(node: str) -> tuple[float, float]:
        return half + place[node], (BOX_H + GAP_Y) * (layer[node] + 0.5)

    parts = [
        f'<svg class="lineage" role="img" aria-label="lineage" viewBox="0 0 {width:.0f}'
        f' {height:.0f}" style="width:{width:.0f}px">'
    ]
    parts += [_edge([point(node) for node in chain]) for chain in chains]
    for identity, node in nodes.items():
        x, y = point(identity)
        family = FAMILIES.get(node["kind"], "data")
        parts.append(
            f'<g class="node {family}"><title>{escape(identity)}</title>'
            f'<rect x="{x - BOX_W / 2:.0f}" y="{y - BOX_H / 2:.0f}" width="{BOX_W}"'
            f' height="{BOX_H}" rx="6"/>'
            f'<text x="{x:.0f}" y="{y - 2:.0f}">{escape(node["name"])}</text>'
            f'<text class="kind" x="{x:.0f}" y="{y + 12:.0f}">{escape(node["kind"])}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def _edge(points: Sequence[tuple[float, float]]) -> str:
    """A smooth way from the first box's foot through the bends to the last box's head."""
    (x, y), *rest = points
    y += BOX_H / 2
    way = f"M{x:.0f},{y:.0f}"
    for number, (to_x, centre_y) in enumerate(rest):
        last = number == len(rest) - 1
        to_y = centre_y - BOX_H / 2
        middle = (y + to_y) / 2
        way += f" C{x:.0f},{middle:.0f} {to_x:.0f},{middle:.0f} {to_x:.0f},{to_y:.0f}"
        x, y = to_x, to_y
        if not last:
            y = centre_y + BOX_H / 2
            way += f" L{x:.0f},{y:.0f}"
    return f'<path class="edge" d="{way}"/>'


def gate_svg(gate: Mapping[str, Any]) -> str:
    """Value and interval on a line, the threshold (or the allowed range) as a mark."""
    limits = gate["threshold"] if isinstance(gate["threshold"], list) else [gate["threshold"]]
    points = [gate["value"], gate["low"], gate["high"], *limits]
    low, high = min(points), max(points)
    margin = 0.12 * (high - low) or max(0.1, 0.1 * abs(high))
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return 150 * (value - low) / (high - low)

    at = [x(limit) for limit in limits]
    marks = [f'<line class="limit" x1="{p:.1f}" x2="{p:.1f}" y1="2" y2="18"/>' for p in at]
    if len(at) == 2:
        size = f'width="{at[1] - at[0]:.1f}" height="16"'
        marks.insert(0, f'<rect class="range" x="{at[0]:.1f}" y="2" {size}/>')
    ends = f'x1="{x(gate["low"]):.1f}" x2="{x(gate["high"]):.1f}"'
    return (
        '<svg class="gate" viewBox="0 0 150 20" role="img" aria-label="value and interval">'
        f'{"".join(marks)}<line class="interval" {ends} y1="10" y2="10"/>'
        f'<circle cx="{x(gate["value"]):.1f}" cy="10" r="4"/></svg>'
    )
