"""Run a recipe: what is missing is made, in order; what is there is left alone.

A stage whose artifact the store has is done, whoever made it. Each stage writes into an empty
folder that is published in one step, so a kill at any moment leaves finished stages and scratch,
and the same command goes on from there.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import subprocess
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster import session
from cluster.artifact import Artifact, Manifest, timestamp
from cluster.errors import UserError, disk_is_full, root_cause, user_error_in
from cluster.index import read_index, write_index
from cluster.meter import Meter, Usage
from cluster.progress import Board, duration
from cluster.shared_folder import check_shared
from cluster.signals import keep_handlers
from cluster.storage import Store
from stages.graph import Graph, Node, build_graph, chosen, whole_input
from stages.recipe import Recipe
from stages.stage import Context

REPORT_FILES = ("report.html", "report.json")


class StageFailure(Exception):
    """A stage ended by something that is not the user's mistake; the message says how to go on."""


@dataclass
class Outcome:
    """What a run did: by step, its manifest, and which of them this run made."""

    recipe: Recipe
    store: Store
    graph: Graph
    manifests: dict[str, Manifest] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    started: str = field(default_factory=timestamp)


def run_recipe(
    recipe: Recipe,
    store: Store,
    console: Console,
    *,
    until: str | None = None,
    only: Sequence[str] = (),
    address: str | None = None,
) -> Outcome:
    """Make what is missing of a recipe's artifacts (all of them, up to `until`, or `only` some)."""
    with store.lease(f"raylm run {recipe.name}"):
        graph = build_graph(recipe, store)
        names = chosen(graph, until, only)
        todo = [name for name in names if not graph.nodes[name].done]
        if todo:
            _check_memory(recipe)
            if address:
                session.check_answers(address)
        outcome = Outcome(recipe, store, graph)
        board = Board(console)
        connected = session.connected()  # by a caller, who goes on with it
        if todo:
            _record(outcome, finished=False)
        try:
            for name in names:
                node = graph.nodes[name]
                if name in todo and not store.has(node.id):
                    position = f"[{names.index(name) + 1}/{len(names)}]"
                    _run_node(node, outcome, board, position, address)
                outcome.manifests[name] = store.manifest(node.id)
                if name in todo:
                    _record(outcome, finished=False)
        finally:
            if not connected:
                session.disconnect()
        _record(outcome, finished=True)
    return outcome


def _run_node(
    node: Node, outcome: Outcome, board: Board, position: str, address: str | None
) -> None:
    """Run one stage and publish what it wrote."""
    recipe, store, graph = outcome.recipe, outcome.store, outcome.graph
    work = store.work / node.work_name
    out, scratch = work / f"out-{node.id}", work / "scratch"
    log = store.local(recipe.name) / "logs" / f"{node.name}.log"
    with _explained(node, recipe, log, work), _logging_to(log):
        inputs = {name: _input(node, name, store, graph) for name in node.parents}
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        with board.stage(node.name, position) as report, Meter(recipe.file.pricing) as meter:
            context = Context(
                seed=recipe.file.seed,
                out=out,
                scratch=scratch,
                durable=store.durable(node.work_name),
                name=node.name,
                progress=report,
                connect=lambda: _join(recipe.file.cpus, address, store.work),
                names=graph.names,
                pricing=recipe.file.pricing,
            )
            metrics = node.step.stage.run(node.step.config, inputs, context)
        usage = meter.usage()
        store.put(out, _manifest_fields(node, recipe, plain(metrics or {}), usage))
        if not node.config_with("duration"):
            shutil.rmtree(work)
    outcome.made.append(node.name)
    board.say(f"{position} {node.name}: done in {duration(usage.seconds)} -> {node.id}")


def _join(cpus: int | None, address: str | None, work: Path) -> None:
    """Start or join the run's Ray session, whose nodes must all see the folder of its work."""
    session.connect(cpus, address)
    keep_handlers()
    if not session.started_here():
        check_shared(work)


def _input(node: Node, name: str, store: Store, graph: Graph) -> Artifact | list[Artifact] | None:
    """The artifacts under one parent field: one, several, or None, as the config's type says."""
    artifacts = []
    for parent in node.parents[name]:
        if not store.has(parent):
            above = graph.names.get(parent, parent)
            raise UserError(
                f"{name} needs {above!r} ({parent}), which has not been made yet; "
                f"run it first: --until {node.name} makes all that is missing"
            )
        artifacts.append(whole_input(parent, store))
    if isinstance(getattr(node.step.config, name), str):
        return artifacts[0]
    return artifacts or ([] if getattr(node.step.config, name) is not None else None)


def _manifest_fields(
    node: Node, recipe: Recipe, metrics: dict[str, Any], usage: Usage
) -> dict[str, Any]:
    stage = node.step.stage
    return {
        "id": node.id,
        "kind": stage.kind,
        "stage": stage.name,
        "stage_version": stage.version,
        "code_version": code_version(),
        "config": node.step.config.model_dump(mode="json"),
        "parents": {name: ids for name, ids in node.parents.items() if ids},
        "fingerprint": node.fingerprint,
        "seed": recipe.file.seed,
        "trajectory": node.trajectory,
        "metrics": metrics,
        **asdict(usage),
    }


def _record(outcome: Outcome, finished: bool) -> None:
    """Write the run's names, its state for machines, and beside them the report's pages."""
    recipe, store = outcome.recipe, outcome.store
    index = {k: v for k, v in read_index(store, recipe.name).items() if k in recipe.steps}
    for name, manifest in outcome.manifests.items():
        index[name] = {"id": manifest.id, "stage": manifest.stage}
    write_index(store, recipe.name, {name: index[name] for name in recipe.steps if name in index})
    state = {
        "recipe": recipe.file.model_dump(mode="json"),
        "code_version": code_version(),
        "started": outcome.started,
        "finished": timestamp() if finished else None,
        "made": outcome.made,
        "work": sorted({node.work_name for node in outcome.graph.nodes.values()}),
        "stages": [
            {"name": name, **manifest.model_dump(mode="json", exclude={"config", "files"})}
            for name, manifest in outcome.manifests.items()
        ],
    }
    store.write(f"{recipe.name}/run.json", json.dumps(state, indent=1).encode())
    for manifest in outcome.manifests.values():
        if finished and manifest.kind == "report":
            artifact = store.get(manifest.id)
            for file in REPORT_FILES:
                store.write(f"{recipe.name}/{file}", artifact.file(file).read_bytes())


@contextmanager
def _explained(node: Node, recipe: Recipe, log: Path, work: Path) -> Iterator[None]:
    """Turn what a stage raises into one sentence that says what happened and how to go on."""
    try:
        yield
    except Exception as error:
        mistake = user_error_in(error)
        if mistake is not None:
            raise UserError(f"stage {node.name!r}: {mistake}") from error
        log.parent.mkdir(parents=True, exist_ok=True)
        if disk_is_full(error):
            free = shutil.disk_usage(work if work.exists() else Path.cwd()).free / 2**30
            raise StageFailure(
                f"stage {node.name!r} stopped: the disk that holds {work} is full ({free:.2f} GiB "
                "free). Nothing finished is lost: free some space (`raylm gc` removes artifacts "
                "that no run names), then run the same command again"
            ) from error
        with log.open("a", encoding="utf-8") as stream:
            traceback.print_exception(error, file=stream)
        raise StageFailure(
            f"stage {node.name!r} failed: {root_cause(error)}\n"
            f"The traceback is in {log}, the workers' logs are in {session.log_folder()}. "
            f"Finished stages are kept: `raylm run {recipe.arguments}` again goes on from here"
        ) from error


@contextmanager
def _logging_to(log: Path) -> Iterator[None]:
    """Send the libraries' log lines and warnings of this process to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()


def _check_memory(recipe: Recipe) -> None:
    """Refuse to start a recipe on a machine with less free memory than it says it needs."""
    needed = recipe.file.memory_gib
    free = session.free_memory_bytes() / 2**30
    if needed is not None and free < needed:
        raise UserError(
            f"recipe {recipe.name!r} needs {needed:g} GiB of memory, found {free:.1f} GiB free: "
            "close other programs, take a smaller recipe (nano), or lower the bar with "
            "--set memory_gib=..."
        )


def plain(value: Any) -> Any:
    """Metrics as JSON values: numpy scalars become numbers, what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


@cache
def code_version() -> str:
    """The package's version, and the commit where the code lies in a git checkout."""
    home = Path(__file__).parent.parent
    if not (home / ".git").exists():
        return version("raylm")
    try:
        commit = subprocess.run(
            ["git", "-C", str(home), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version("raylm")
    return f"{version('raylm')}+{commit}"
