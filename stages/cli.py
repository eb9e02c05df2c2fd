"""The command `raylm`: thin functions that parse, call, and say where the result is.

Exit codes: 0 done, 1 a failure that is not the user's, 2 the user's mistake, 130 interrupted.
Everything heavy is imported inside the functions, so that `raylm --help` answers at once.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from cluster.errors import UserError

if TYPE_CHECKING:
    from cluster.storage import Store
    from stages.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From a raw web crawl to an autoscaled chat endpoint, as one recipe on one Ray cluster.",
)
INTERRUPTED = 130
console = Console(width=None if sys.stdout.isatty() else 120, markup=False)
errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

RecipeName = Annotated[str, typer.Argument(help="A built-in recipe's name, or a YAML file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a value: stages.base.steps=100"),
]
StoreUrl = Annotated[str, typer.Option("--store", help="The store: a folder, s3://... or gs://...")]
Address = Annotated[str, typer.Option(help="The cluster's address, such as http://head:8265")]
JobId = Annotated[str, typer.Argument(help="The id that `raylm submit` printed.")]


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    context.ensure_object(dict)["debug"] = debug


@app.command()
def run(
    recipe: RecipeName,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Run these stages alone.")] = None,
    settings: Settings = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster to join.")] = None,
) -> None:
    """Run a recipe, or go on where it stopped; what is made already is left alone."""
    from cluster.signals import STOPPING, keep_handlers
    from stages.graph import check_imports
    from stages.pipeline import run_recipe
    from stages.planning import check_shapes
    from stages.summary import show_outcome

    loaded, store = _load(recipe, settings)
    check_imports(loaded, store)
    check_shapes(loaded, store)
    for number in STOPPING:
        signal.signal(number, _stop_run)
    keep_handlers()
    try:
        outcome = run_recipe(loaded, store, console, until=until, only=only or (), address=address)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    show_outcome(console, outcome)


@app.command()
def plan(recipe: RecipeName, settings: Settings = None) -> None:
    """Show the graph, what is made already, and sizes, memory, time and cost; run nothing."""
    from stages.graph import build_graph
    from stages.planning import plan_figures
    from stages.summary import show_plan

    loaded, store = _load(recipe, settings)
    graph = build_graph(loaded, store, sources_needed=False)
    show_plan(console, loaded, graph, plan_figures(loaded, graph, store))


@app.command()
def show(
    artifact: Annotated[str, typer.Argument(help="An id, recipe/stage, or an imported name.")],
    store: StoreUrl = "runs",
) -> None:
    """Show an artifact's manifest and its lineage."""
    from cluster.index import find_artifact
    from stages.opening import open_reachable
    from stages.summary import show_artifact

    opened = open_reachable(store)
    show_artifact(console, opened, find_artifact(opened, artifact))


@app.command()
def trace(
    run: Annotated[str, typer.Argument(help="A pretraining run: an id, or recipe/stage.")],
    step: Annotated[int, typer.Argument(min=0, help="The step of the batch.")],
    row: Annotated[int, typer.Argument(min=0, help="The row in the batch.")],
    position: Annotated[int, typer.Argument(min=0, help="The position in the row.")],
    store: StoreUrl = "runs",
) -> None:
    """Say where a token of a training batch came from: document, archive, offset, steps passed."""
    from cluster.index import find_artifact
    from stages.opening import open_reachable
    from stages.summary import show_trace
    from stages.trace import Tracer

    opened = open_reachable(store)
    tracer = Tracer(opened, opened.get(find_artifact(opened, run)))
    show_trace(console, tracer.trace(step, row, position))


@app.command()
def report(recipe: RecipeName, settings: Settings = None) -> None:
    """Say where the page over a run lies."""
    loaded, store = _load(recipe, settings)
    if store.read(f"{loaded.name}/report.html") is None:
        raise UserError(
            f"recipe {loaded.name!r} has no report in {store.url} yet: "
            f"`raylm run {loaded.arguments}` makes it"
        )
    console.print(f"{store.url}/{loaded.name}/report.html", soft_wrap=True, highlight=False)


@app.command()
def serve(
    what: Annotated[str, typer.Argument(help="A recipe that has run, or an artifact.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on.")] = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Copies of the model.")
    ] = None,
    settings: Settings = None,
    store: Annotated[
        str | None, typer.Option(help="The store, if not the recipe's or (of an artifact) runs.")
    ] = None,
) -> None:
    """Serve a model behind an OpenAI-compatible endpoint."""
    from stages.endpoint import endpoint_of

    endpoint = endpoint_of(what, settings or (), store)  # mistakes first, then slow imports
    from serve.app import serve as start

    start(
        endpoint.folder,
        host=host or endpoint.host,
        port=port or endpoint.port,
        replicas=replicas or endpoint.replicas,
        name=endpoint.name,
        block=True,
    )


@app.command()
def chat(
    url: Annotated[str, typer.Option(help="The endpoint.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="Its name, where several are served.")] = None,
) -> None:
    """Talk to an endpoint."""
    from serve.client import chat as talk

    raise typer.Exit(talk(url, model))


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A model, tokenizer, tokens or JSONL.")],
    name: Annotated[str, typer.Option(help="The name that recipes use for it.")],
    store: StoreUrl = "runs",
) -> None:
    """Bring a model, tokenizer, JSONL or tokens made elsewhere into the store."""
    from stages.importing import import_artifact
    from stages.opening import open_reachable

    artifact = import_artifact(open_reachable(store), source, name)
    console.print(f"{name} is {artifact.id}, at {artifact.path}", soft_wrap=True)
    console.print(f"use it in a recipe as the parent {name!r}", highlight=False)


@app.command()
def gc(
    store: StoreUrl = "runs",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove artifacts that no run names or needs, and scratch of trajectories no longer used."""
    from stages.opening import open_reachable
    from stages.sweep import sweep

    freed = sweep(open_reachable(store), dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    for line in freed.lines:
        console.print(f"{verb} {line}", soft_wrap=True, highlight=False)
    console.print(f"{verb} {freed.count} things, {freed.size / 1e6:.1f} MB", highlight=False)


@app.command()
def doctor(store: StoreUrl = "runs") -> None:
    """Check the compiler, shared memory, limits, cores, memory, disk and versions."""
    from stages.doctor import examine

    colours = {"ok": "green", "warn": "yellow", "bad": "red"}
    bad = 0
    for finding in examine(Path(store).absolute()):
        bad += finding.level == "bad"
        advice = f"  -> {finding.advice}" if finding.advice else ""
        console.print(f"{finding.level:>4}", style=colours[finding.level], end="")
        console.print(f" {finding.what}: {finding.found}{advice}", highlight=False)
    if bad:
        raise typer.Exit(1)
    console.print("Ready: raylm run tiny", highlight=False)


@app.command()
def submit(
    recipe: RecipeName,
    address: Address,
    settings: Settings = None,
    follow: Annotated[bool, typer.Option(help="Show its log until it ends.")] = True,
) -> None:
    """Run a recipe as a job on a Ray cluster."""
    from cluster.jobs import submit as submit_job
    from stages.recipe import load_recipe

    store = load_recipe(recipe, settings or ()).file.store
    if "://" not in store and not Path(store).is_absolute():
        errors.print(
            f"note: the store {store!r} will lie in the job's folder on the cluster's head; for "
            "results that stay, and workers on other nodes, --set store=/shared/folder or s3://..."
        )
    arguments = [part for setting in settings or () for part in ("--set", setting)]
    raise typer.Exit(submit_job(recipe, address, arguments, follow))


@app.command()
def status(job: JobId, address: Address) -> None:
    """Say how a job stands."""
    from cluster import jobs

    console.print(jobs.status(address, job))


@app.command()
def logs(job: JobId, address: Address) -> None:
    """Show a job's log."""
    from cluster import jobs

    console.print(jobs.logs(address, job), highlight=False, soft_wrap=True)


@app.command()
def stop(job: JobId, address: Address) -> None:
    """Stop a job; what it finished is kept."""
    from cluster import jobs

    console.print(jobs.stop(address, job))


@app.command()
def verify(
    completions: Annotated[Path, typer.Argument(help="JSONL of {id, completion}.")],
    problems: Annotated[Path, typer.Option(help="problems.jsonl, or a folder with it.")],
    task: Annotated[str | None, typer.Option(help="arithmetic, format or code.")] = None,
) -> None:
    """Print a verdict for every completion of a JSONL file."""
    from stages.verify.verifier import verify_jsonl

    result = verify_jsonl(problems, completions, task)
    for verdict in result["verdicts"]:
        typer.echo(json.dumps(verdict, ensure_ascii=False))
    errors.print(f"{result['passed']} of {result['count']} passed, {result['errors']} errors")


def _load(name: str, settings: list[str] | None) -> tuple[Recipe, Store]:
    from stages.opening import open_reachable
    from stages.recipe import load_recipe

    recipe = load_recipe(name, settings or ())
    return recipe, open_reachable(recipe.file.store)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
    raise KeyboardInterrupt  # a SystemExit would lose its code inside a call of Ray's


def _stop_run(number: int, frame: FrameType | None) -> NoReturn:
    errors.print("stopped; finished stages are kept, the same command goes on from there")
    _interrupt(number, frame)


def main() -> None:
    """The door: run the command and turn what it raises into a sentence and an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    debug = "--debug" in sys.argv
    sys.argv = [sys.argv[0], *(a for a in sys.argv[1:] if a != "--debug")]
    try:
        app()
    except Exception as error:
        if debug:
            raise
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    """Print what went wrong in a sentence; the exit code."""
    from cluster.errors import disk_is_full
    from stages.opening import unreachable
    from stages.pipeline import StageFailure

    if isinstance(error, UserError):
        errors.print(f"error: {error}")
        return 2
    if isinstance(error, StageFailure):
        errors.print(f"error: {error}")
        return 1
    if disk_is_full(error):
        errors.print(f"error: the disk is full: {error}; free some space, then run it again")
        return 1
    if (sentence := unreachable(error)) is not None:
        errors.print(f"error: {sentence}")
        return 2
    errors.print(
        f"error: {type(error).__name__}: {error}\n"
        "This is a fault of the program, not of what you gave it; --debug shows the traceback"
    )
    return 1


if __name__ == "__main__":
    main()
