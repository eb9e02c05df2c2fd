"""What a person reads at the end of a command: the run's table, a plan, an artifact's lineage."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from cluster.artifact import Manifest
from cluster.progress import duration
from cluster.storage import Store
from stages.graph import Graph
from stages.pipeline import REPORT_FILES, Outcome
from stages.recipe import Recipe
from stages.trace import Trace

FIGURES = 3
DEFAULT_URL = "http://127.0.0.1:8000"
PREFERRED = (
    "documents_in", "documents", "pages", "train", "vocabulary_size", "train_tokens",
    "accuracy", "increase_percent", "bytes_after", "win_rate", "reward_before", "reward_after",
    "reward", "pass_rate_first", "pass_rate_last", "pass_rate", "pass_at_1",
    "heldout_bits_per_byte", "heldout_loss", "loss", "gates_passed", "gates",
    "tokens_per_second", "parameters", "tokens", "steps", "bytes",
)  # fmt: skip


def show_trace(console: Console, trace: Trace) -> None:
    """A token's way back to the crawl."""
    document = trace.document
    table = Table(show_header=False, box=None)
    for name, value in (
        ("document", f"{document.id}, its token {trace.token}"),
        ("url", document.url),
        ("archive", trace.archive),
        ("offset", str(document.offset)),
        ("corpus", f"{trace.corpus}/{trace.file}"),
        ("language", document.language),
        ("passed", " > ".join(trace.passed)),
        ("begins", document.text[:200].replace("\n", " ")),
    ):
        table.add_row(name, value)
    console.print(table)


def show_outcome(console: Console, outcome: Outcome) -> None:
    """The table of a run, where its results are, and what to do next."""
    recipe, price = outcome.recipe, outcome.recipe.file.pricing
    table = Table(title=f"{recipe.name} ({outcome.store.url})", title_justify="left")
    for title in ("stage", "kind", "time", "key figures", f"cost {price.currency}", "energy Wh"):
        right = title.startswith(("time", "cost", "energy"))
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for name, manifest in outcome.manifests.items():
        table.add_row(
            name,
            manifest.stage,
            _time(manifest, name in outcome.made),
            key_figures(manifest.metrics),
            f"{manifest.cost:.4f}",
            f"{manifest.energy_kwh * 1000:.2f}",
        )
    every = list(outcome.manifests.values())
    table.add_section()
    table.add_row(
        "total",
        f"{len(every)} stages",
        duration(sum(m.seconds for m in every)),
        f"peak memory {max((m.peak_pss_bytes for m in every), default=0) / 2**30:.2f} GiB",
        f"{sum(m.cost for m in every):.4f}",
        f"{1000 * sum(m.energy_kwh for m in every):.2f}",
    )
    console.print(table)
    sources = {manifest.energy_source for manifest in every}
    measured = "measured by the processor" if sources == {"RAPL"} else "an estimate in part"
    measured = "an estimate of the time held" if sources == {"estimate"} else measured
    console.print(f"Cost is an estimate from the recipe's pricing, energy is {measured}.")
    if not outcome.made:
        console.print("Nothing was to be done: every artifact was there already.")
    for line in next_steps(outcome):
        console.print(line, highlight=False)


def _time(manifest: Manifest, made: bool) -> str:
    return duration(manifest.seconds) + ("" if made else " (cached)")


def next_steps(outcome: Outcome) -> list[str]:
    """Where the results are and what a person may do with them."""
    recipe, store = outcome.recipe, outcome.store
    lines = []
    if any(manifest.kind == "report" for manifest in outcome.manifests.values()):
        page, data = (f"{store.url}/{recipe.name}/{file}" for file in REPORT_FILES)
        lines += [f"report:    {page}", f"           {data} (for machines)"]
    serve = recipe.file.serve
    if serve and serve.model in outcome.manifests:
        url = f"http://{serve.host}:{serve.port}"
        lines += [
            f"endpoint:  raylm serve {recipe.arguments}   -> {url}/v1",
            f"talk:      raylm chat{'' if url == DEFAULT_URL else f' --url {url}'}   "
            "(in another terminal)",
        ]
    missing = [name for name, node in outcome.graph.nodes.items() if not store.has(node.id)]
    if missing:
        lines.append(f"next:      raylm run {recipe.arguments}   makes {', '.join(missing)} too")
    elif not lines:
        where = "" if recipe.file.store == "runs" else f" --store {shlex.quote(recipe.file.store)}"
        lines.append(f"look:      raylm show {recipe.name}/{list(recipe.steps)[-1]}{where}")
    return lines


def key_figures(metrics: Mapping[str, Any]) -> str:
    """A few of a stage's metrics in one line: the telling ones first, then other numbers."""
    numbers = {
        key: value
        for key, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    first = [key for key in PREFERRED if key in numbers]
    rest = [key for key in numbers if key not in first]
    return ", ".join(f"{key} {number(numbers[key])}" for key in [*first, *rest][:FIGURES])


def number(value: float) -> str:
    """A number for people: 1 234 567 as 1.23M, 0.41237 as 0.412; FLOPs go beyond T."""
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def show_plan(
    console: Console, recipe: Recipe, graph: Graph, figures: Mapping[str, Mapping[str, Any]]
) -> None:
    """The order of the stages, what feeds them, which are made already, and their figures."""
    table = Table(title=f"plan of {recipe.name}", title_justify="left")
    for title in ("#", "stage", "kind", "from", "artifact", "state"):
        table.add_column(title, overflow="fold")
    for position, (name, node) in enumerate(graph.nodes.items(), start=1):
        above = dict.fromkeys(graph.names[i] for ids in node.parents.values() for i in ids)
        state = "cached" if node.done else "to make"
        table.add_row(str(position), name, node.step.stage.name, ", ".join(above), node.id, state)
    console.print(table)
    for name, values in figures.items():
        if values:
            console.print(name, style="bold", highlight=False)
            for key, value in values.items():
                shown = number(value) if isinstance(value, int | float) else value
                console.print(f"  {key}: {shown}", highlight=False)
    for note in graph.notes:
        console.print(f"note: {note}", highlight=False)
    todo = [name for name, node in graph.nodes.items() if not node.done]
    if todo:
        console.print(
            f"{len(todo)} of {len(graph.nodes)} stages to make: raylm run {recipe.arguments}"
        )
    else:
        console.print("Everything is made already; raylm run would do nothing.")


def show_artifact(console: Console, store: Store, artifact_id: str) -> None:
    """An artifact's manifest for people, and the tree of what it came from."""
    manifest = store.manifest(artifact_id)
    table = Table(show_header=False, box=None)
    rows = {
        "artifact": manifest.id,
        "stage": f"{manifest.stage} version {manifest.stage_version}, code {manifest.code_version}",
        "made": f"{manifest.created} in {duration(manifest.seconds)}",
        "cost, energy": f"{manifest.cost:.4f}, {1000 * manifest.energy_kwh:.2f} Wh "
        f"({manifest.energy_source})",
        "seed": str(manifest.seed),
        "size": f"{len(manifest.files)} files, {manifest.size / 1e6:.2f} MB",
    }
    for group in ("config", "metrics"):
        for key, value in getattr(manifest, group).items():
            rows[f"{group}.{key}"] = _short(value)
    for entry in manifest.files:
        rows[f"file {entry.path}"] = f"{entry.size} bytes, sha256 {entry.sha256[:16]}..."
    for key, value in rows.items():
        table.add_row(key, value)
    console.print(table)
    console.print(_tree(store, manifest, "came from", set()))


def _tree(store: Store, manifest: Manifest, title: str, shown: set[str]) -> Tree:
    """The ancestors as branches; one met again is not unfolded again."""
    branch = Tree(f"{title}: {manifest.id} ({manifest.stage}, seed {manifest.seed})")
    if manifest.id in shown and manifest.parents:
        branch.label = f"{branch.label}, see above"
        return branch
    shown.add(manifest.id)
    for field, ids in manifest.parents.items():
        for parent in ids:
            if store.has(parent):
                branch.add(_tree(store, store.manifest(parent), field, shown))
            else:
                branch.add(f"{field}: {parent} (no longer in the store)")
    return branch


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 160 else text[:157] + "..."
