"""Facts and charts to one self-contained HTML page: nothing is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from stages.report.drawing import gate_svg, lineage_svg
from stages.report.facts import Facts, totals
from stages.report.figures import pass_at_k_chart, training_charts

DOORS = (
    "quarantine",
    "read",
    "extraction",
    "language",
    "gopher_repetition",
    "gopher_quality",
    "c4",
    "fineweb",
    "decontamination",
    "dedup",
)
"""The corpus's steps in their order; others stand behind them."""
ROLES = ("pretrain", "sft", "dpo", "ppo", "rlvr", "sft_continued")


@dataclass(frozen=True)
class Charts:
    """The page's drawings, as SVG."""

    training: list[str]
    pass_at_k: list[str]
    lineage: str


def draw(facts: Facts, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Charts:
    """All drawings of a run. `logs`: stage name -> lines of its log."""
    return Charts(
        list(training_charts(logs).values()), _pass_charts(facts), lineage_svg(facts["lineage"])
    )


def render(facts: Facts, charts: Charts, samples: Sequence[Mapping[str, Any]]) -> str:
    """The page over a run; `samples` are evaluate's answers."""
    environment = Environment(
        loader=PackageLoader("stages.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
    )
    environment.filters |= {
        "time": show_time,
        "size": show_size,
        "count": show_count,
        "share": show_share,
        "interval": show_interval,
    }
    rows = facts["stages"]
    base: dict[str, Any] = next((row["metrics"] for row in rows if row["kind"] == "pretrain"), {})
    return environment.get_template("page.html.jinja").render(
        facts=facts,
        totals=totals(rows),
        slowest=max((row["seconds"] for row in rows), default=0.0) or 1.0,
        passed=sum(gate["passed"] for gate in facts["gates"]),
        parameters=base.get("parameters"),
        trained_tokens=base.get("tokens"),
        funnel=funnel(facts["corpus"]) if facts["corpus"] else [],
        training=[Markup(svg) for svg in charts.training],
        pass_charts=[Markup(svg) for svg in charts.pass_at_k],
        answers=side_by_side(samples),
        gate_svg=lambda gate: Markup(gate_svg(gate)),
        lineage=Markup(charts.lineage),
    )


def _pass_charts(facts: Facts) -> list[str]:
    """All tasks together, then each task."""
    if not facts["pass_at_k"]:
        return []
    order = [*ROLES, *(role for role in facts["pass_at_k"] if role not in ROLES)]
    full = max(len(curve) for curve in facts["pass_at_k"].values())
    curves = {
        role: facts["pass_at_k"][role]
        for role in order
        if len(facts["pass_at_k"].get(role, ())) == full
    }
    charts = [pass_at_k_chart(_titled(curves), "all tasks")]
    tasks: dict[str, dict[str, Any]] = {}
    for model in facts["scores"]["models"].values():
        if model["role"] in curves and model["pass_at_k"] == curves[model["role"]]:
            for task, curve in model["pass_at_k_by_task"].items():
                tasks.setdefault(task, {})[model["role"]] = curve
    for task, by_role in tasks.items():
        sorted_curves = {role: by_role[role] for role in curves if role in by_role}
        charts.append(pass_at_k_chart(_titled(sorted_curves), task, legend=False))
    return charts


def _titled(curves: Mapping[str, Any]) -> dict[str, Any]:
    return {role.replace("_", " "): curve for role, curve in curves.items()}


def funnel(corpus: Facts) -> list[dict[str, Any]]:
    """Rows of the funnel: what is left after each step, and what it took, in per cent of all."""
    came = corpus["in"]["documents"]
    taken = {step: counts["documents"] for step, counts in corpus["dropped"].items()}
    why = {step: counts["reasons"] for step, counts in corpus["dropped"].items()}
    steps = sorted(taken, key=lambda step: DOORS.index(step) if step in DOORS else len(DOORS))
    left = came
    rows = [{"name": "came in", "left": 100.0, "lost": 0.0, "why": "", "text": show_count(came)}]
    for step in steps:
        left -= taken[step]
        reasons = sorted(why[step].items(), key=lambda pair: -pair[1])
        shown = ", ".join(str(reason) for reason, _ in reasons[:3] if reason != step)
        rows.append(
            {
                "name": step.replace("_", " "),
                "left": 100 * left / max(1, came),
                "lost": 100 * taken[step] / max(1, came),
                "why": shown if len(shown) < 60 else f"{len(reasons)} reasons",
                "text": f"−{show_count(taken[step])}",
            }
        )
    kept = corpus["kept"]["documents"]
    share = 100 * kept / max(1, came)
    text = f"{show_count(kept)} ({share:.0f} %)"
    rows.append({"name": "kept", "left": share, "lost": 0.0, "why": "", "text": text})
    return rows


def side_by_side(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Samples grouped by prompt, in the order of the first model's prompts."""
    prompts: dict[str, dict[str, Any]] = {}
    for sample in samples:
        group = prompts.setdefault(
            sample["prompt"], {"prompt": sample["prompt"], "task": sample["task"], "answers": []}
        )
        group["answers"].append(sample)
    return list(prompts.values())


def show_time(seconds: float) -> str:
    """1.2 s, 34 s, 5:06 min, 2:03 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def show_size(size_bytes: float) -> str:
    """Bytes in the binary unit that suits."""
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.2f} GiB"


def show_count(number: float | None) -> str:
    """Whole below ten thousand, then with K, M, B."""
    if number is None:
        return "–"
    for limit, divisor, unit in ((1e4, 1, ""), (1e6, 1e3, "K"), (1e9, 1e6, "M"), (1e15, 1e9, "B")):
        if number < limit:
            return f"{number / divisor:.3g} {unit}".strip() if unit else f"{number:,.0f}"
    return f"{number:.3g}"


def show_share(value: float | None) -> str:
    """A share in per cent."""
    return "–" if value is None else f"{100 * value:.1f} %"


def show_interval(found: Any, digits: int) -> Markup:
    """value [low, high], or a dash where nothing was measured."""
    if not found:
        return Markup("–")
    value, low, high = (f"{number:.{digits}f}" for number in found)
    return Markup("{} <small>[{}, {}]</small>").format(value, low, high)
