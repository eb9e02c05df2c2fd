"""The report's charts, as SVG in the page's own text colour: one chart serves light and dark.

matplotlib writes text as text and one sentinel colour for all that is not data; the sentinel
becomes `currentColor`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"
PALETTE = ("#3d85c6", "#e08a2e", "#3fa37b", "#cc5a71", "#8e6fc4", "#8a8f3c", "#4aa8b8", "#b07a56")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
POINT = 4 / 3
"""CSS pixels of a point."""
REINFORCED = ("pass_rate", "reward", "score")
"""What rises in a reinforcement stage; its loss says little."""


def to_svg(figure: Figure, label: str) -> str:
    """The figure as an inline <svg>, the same bytes for the same data."""
    buffer = io.StringIO()
    with plt.rc_context({**STYLE, "svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # metadata says nothing here, and the style of one inline drawing would hold for the whole page
    text = re.sub(r"<(metadata|style)[ >].*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 sans-serif", text)
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert view is not None, "matplotlib's SVG has a viewBox"
    style = f"width:{float(view.group(1)) * POINT:.0f}px"
    head = f'<svg role="img" aria-label="{escape(label)}" style="{style}" {view.group(0)}'
    return re.sub(r"<svg[^>]*", head, text, count=1)


def pass_at_k_chart(
    curves: Mapping[str, Mapping[str, Sequence[float]]], title: str, legend: bool = True
) -> str:
    """Curves over k with their intervals as bands."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.4) if legend else (3.0, 2.3))
        for color, (name, curve) in zip(_colors(), curves.items(), strict=False):
            ks = [int(k) for k in curve]
            value, low, high = np.array([curve[k] for k in curve]).T
            axes.plot(ks, value, color=color, marker="o", markersize=3.5, label=name)
            axes.fill_between(ks, low, high, color=color, alpha=0.14, linewidth=0)
        _log_two(axes, curves)
        axes.set_ylim(0, 1)
        axes.set_ylabel("share of problems solved" if legend else "")
        axes.set_title(title)
        if legend:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
        return to_svg(figure, f"pass@k {title}")


def _log_two(axes: Axes, curves: Mapping[str, Mapping[str, Any]]) -> None:
    ks = sorted({int(k) for curve in curves.values() for k in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_xlabel("k (samples)")


def training_charts(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """One small chart for each stage that trained: its loss, or what it was rewarded for."""
    charts = {}
    for color, (name, lines) in zip(_colors(len(logs)), logs.items(), strict=False):
        key = next((k for k in (*REINFORCED, "loss") if any(k in line for line in lines)), None)
        if key is None:
            continue
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        if len(points) < 2:
            continue
        steps, values = np.array(points, dtype=float).T
        with plt.rc_context(STYLE):
            figure, axes = plt.subplots(figsize=(2.7, 1.9))
            axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
            axes.plot(steps, _smooth(values), color=color, linewidth=1.6)
            axes.set_title(f"{name}: {key.replace('_', ' ')}")
            axes.set_xlabel("step")
            charts[name] = to_svg(figure, f"{key} of {name}")
    return charts


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred moving mean over a twentieth of the run, shorter at its ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(0, index - half), np.minimum(len(values), index + half + 1)
    return (total[high] - total[low]) / (high - low)


def _colors(count: int = len(PALETTE)) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(max(count, len(PALETTE)))]
