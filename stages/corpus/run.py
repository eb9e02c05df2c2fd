"""The corpus stage's run: units in parallel, duplicates over all of them, then the documents and
books.

A killed run is started again with the same command: committed units, partitions and files are found
in `context.scratch` and not read again, and the files that come out are the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from cluster.artifact import Artifact, canonical_hash
from cluster.errors import UserError
from cluster.stream import stream
from cluster.took import TOOK, total
from stages.corpus import Config
from stages.corpus.boilerplate import LineCounter, repeated_lines
from stages.corpus.duplicates import RunTasks, Search, Task, find_duplicates
from stages.corpus.publish import Books, FileWorker, share_out
from stages.corpus.repeats import find_repeats
from stages.corpus.screen import check_screening, quality_overrides, screen_settings
from stages.corpus.settings import MakeUnitWorker, Settings
from stages.corpus.sources import Job, find_jobs
from stages.corpus.truth import measure, read_truth
from stages.corpus.unit_files import CommittedUnit, PublishedFile
from stages.stage import Context, Inputs, Metrics, StageConfig, several
from stages.tasks.problem import read_problems
from stages.text.decontamination import Decontaminator, certificate
from stages.text.documents import document_files

FEW_DOCUMENTS = 50_000
"""Up to so many, what comes after the units takes less time than the start of actors."""


def run(config: StageConfig, inputs: Inputs, context: Context) -> Metrics:
    """Write the corpus into `context.out`; returns the metrics."""
    config, begun = cast(Config, config), time.time()
    check_screening(config, config.languages)
    overrides = quality_overrides(config)
    if overrides:
        from stages.text.quality import check_overrides

        check_overrides(overrides)
    crawls = several(inputs, "crawls")
    jobs = find_jobs(crawls, config.sources)
    settings = _settings(config, several(inputs, "decontaminate"))
    workers = _workers(config, context)
    settings = _with_boilerplate(jobs, settings, context, workers)
    folders = _read_units(jobs, settings, context, workers)
    search = _search(config, inputs.get("published") or (), folders, context)
    task_workers = workers if search.starts[-1] > FEW_DOCUMENTS else 0
    tasks = partial(_run_tasks, task_workers)
    gone = find_duplicates(search, tasks)
    words = config.repeated_span_words or 0
    repeats = find_repeats(search, gone, words, tasks) if words else []
    truth = [page for crawl in crawls for page in read_truth(crawl.path)]
    urls = frozenset(page["url"] for page in truth)
    made = _write_files(config, search, gone, repeats, urls, tasks)
    metrics = _finish(settings, truth, folders, made, context.out)
    work = _work(context.scratch, search.out, (workers, task_workers), begun)
    return metrics | {"work": work}


def _settings(config: Config, problems: Sequence[Artifact]) -> Settings:
    evaluation: list[str] = []
    training: list[str] = []
    for artifact in problems:
        for problem in read_problems(artifact.path):
            (evaluation if problem.split == "eval" else training).append(problem.prompt)
    return Settings(
        languages=tuple(config.languages),
        language_threshold=config.language_threshold,
        quality={**quality_overrides(config)},
        mask_personal_data=config.mask_personal_data,
        max_page_bytes=config.max_page_bytes,
        samples_per_reason=config.samples_per_reason,
        evaluation=tuple(evaluation),
        training=tuple(training),
        screen=screen_settings(config),
        extractor=config.extractor,
    )


def _with_boilerplate(
    jobs: Sequence[Job], settings: Settings, context: Context, workers: int
) -> Settings:
    """The settings with the hosts' repeated lines, which are found first if they are asked for."""
    pages = settings.screen.boilerplate_pages
    if not pages:
        return settings
    folder = context.scratch / "lines"
    folder.mkdir(exist_ok=True)
    out = context.scratch / "boilerplate.npy"
    if not out.exists():
        counts = [folder / f"{job.folder}.npy" for job in jobs]
        waiting = [job for job, path in zip(jobs, counts, strict=True) if not path.exists()]
        weights = [float(job.weight()) for job in waiting]
        for _ in stream(partial(LineCounter, settings, folder), waiting, workers, weights):
            pass
        repeated_lines(counts, pages, out)
    return replace(settings, boilerplate=out)


def _workers(config: Config, context: Context) -> int:
    if config.workers == 0:
        return 0
    from cluster import session

    context.connect()
    return config.workers or session.cores_in_reach()


def _read_units(
    jobs: Sequence[Job], settings: Settings, context: Context, workers: int
) -> list[Path]:
    """Commit every unit that is not committed yet; returns their folders in crawl order."""
    folder = context.scratch / "units"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {job.folder for job in jobs}
    for left in folder.iterdir():  # half a unit of a killed run, or of other sources
        if left.name not in wanted:
            shutil.rmtree(left)
    waiting = [job for job in jobs if not (folder / job.folder).exists()]
    weights = [float(job.weight()) for job in waiting]
    total = sum(job.weight() for job in jobs)
    count, done = len(jobs) - len(waiting), total - sum(weights)
    make = MakeUnitWorker(settings, folder)
    for number in stream(make, waiting, workers, weights):
        count, done = count + 1, done + weights[number]
        context.progress(done, total, f"{count} of {len(jobs)} units")
    return [folder / job.folder for job in jobs]


def _search(
    config: Config, published: Sequence[Artifact], folders: Sequence[Path], context: Context
) -> Search:
    """The published corpora's files, which come first, and this run's units."""
    older = []
    for corpus in published:
        for path in document_files(corpus.path):
            found = PublishedFile(path)
            if not found.comparable():
                raise UserError(
                    f"corpus {corpus.id} holds no {found.signatures.name} of this version: it was "
                    "made by an older one; make it again to find duplicates of it"
                )
            older.append(found)
    units = [CommittedUnit(folder) for folder in folders]
    names = [
        str(config.duplicate_similarity),
        str(config.repeated_span_words),
        *(corpus.id for corpus in published),
    ]
    names += [folder.name for folder in folders]
    out = context.scratch / f"duplicates-{canonical_hash({'of': names})}"
    out.mkdir(exist_ok=True)
    return Search([*older, *units], out, config.duplicate_similarity, len(older))


def _run_tasks(workers: int, make: Callable[[], Task], numbers: Sequence[int]) -> None:
    for _ in stream(make, numbers, workers):
        pass


def _write_files(
    config: Config,
    search: Search,
    gone: Sequence[Path],
    repeats: Sequence[Path],
    truth_urls: frozenset[str],
    run_tasks: RunTasks,
) -> list[Path]:
    """Commit every file that is not committed yet; returns their folders in order."""
    out = search.out / "files"
    out.mkdir(exist_ok=True)
    starts = search.starts[search.published :]
    kept = np.diff(starts)
    for path in gone:
        kept = kept - np.diff(np.searchsorted(np.load(path)[0], starts))
    files = share_out(kept.tolist(), config.documents_per_file)
    make = partial(
        FileWorker, search, gone, files, out, config.heldout_fraction, config.samples_per_reason,
        truth_urls, repeats, config.repeated_span_words or 0,
    )  # fmt: skip
    folders = [out / f"{number:05d}" for number in range(len(files))]
    waiting = [number for number, folder in enumerate(folders) if not folder.exists()]
    run_tasks(make, waiting)
    return folders


def _nothing_kept(ledger: dict[str, Any], folders: Sequence[Path]) -> str:
    found = ledger["in"]["documents"]
    if found == sum(ledger["quarantined"].values()):
        why = (
            ", ".join(f"{reason} ({n})" for reason, n in ledger["quarantined"].items())
            or "no records"
        )
        return (
            f"nothing could be read from {len(folders)} files: {why};"
            " expected WARC, WET, ARC, JSONL, Parquet or HTML. Check the paths and the files"
        )
    steps = {
        step: sum(r["documents"] for r in by.values()) for step, by in ledger["dropped"].items()
    }
    return (
        f"of {found} documents none was kept; dropped by {steps}."
        " Loosen `quality`, add to `languages`, or give other sources"
    )


def _finish(
    settings: Settings,
    truth: list[dict[str, Any]],
    folders: Sequence[Path],
    made: Sequence[Path],
    out: Path,
) -> Metrics:
    """Link the files into the artifact, add up their books and write what is about all of them."""
    books = Books()
    for number, folder in enumerate(made):
        books.add_file(folder / "books.json")
        for name in ("documents.parquet", "signatures.npy"):
            stem, _, ending = name.partition(".")
            _link(folder / name, out / f"{stem}-{number:05d}.{ending}")
    if not books.ledger.total("kept")["documents"]:
        raise UserError(_nothing_kept(books.ledger.as_json(), folders))

    def write(name: str, value: Any) -> None:
        (out / name).write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")

    write("ledger.json", books.ledger.as_json())
    if truth:
        write("truth.json", measure(truth, books.outcomes, books.texts))
    search = Decontaminator(settings.evaluation, settings.training)
    write("decontamination.json", certificate(search, settings.evaluation, books.hits))
    write("personal_data.json", {"masked_before_dedup": dict(sorted(books.masked.items()))})
    for name in ("dropped.jsonl", "quarantine.jsonl"):
        with (out / name).open("w", encoding="utf-8") as file:
            for folder in folders:
                for line in (folder / name).read_text(encoding="utf-8").splitlines():
                    row = {"unit": folder.name} | json.loads(line)
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
            if name == "dropped.jsonl":
                for folder in made:
                    file.write((folder / name).read_text(encoding="utf-8"))
    return _metrics(books, out)


def _work(
    scratch: Path, duplicates: Path, workers: tuple[int, int], begun: float
) -> dict[str, Any]:
    """What all units and tasks took, whichever run did them, and this run's seconds: what
    `raylm plan` scales. `workers` read units, and did the tasks that follow.
    """
    notes = {
        "lines": (scratch.glob(f"lines/*.{TOOK}"), workers[0]),
        "units": (scratch.glob(f"units/*/{TOOK}"), workers[0]),
        "duplicates": (duplicates.glob(f"*/*.{TOOK}"), workers[1]),
        "files": (duplicates.glob(f"files/*/{TOOK}"), workers[1]),
    }
    steps = {name: total(sorted(paths), count, begun) for name, (paths, count) in notes.items()}
    return {"workers": workers[0], "seconds": round(time.time() - begun, 3)} | steps


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _metrics(books: Books, out: Path) -> Metrics:
    ledger = books.ledger.as_json()
    metrics: Metrics = {
        "documents_in": ledger["in"]["documents"],
        "bytes_in": ledger["in"]["bytes"],
        "documents": ledger["kept"]["documents"],
        "quarantined": sum(ledger["quarantined"].values()),
        "dropped": {
            step: sum(reason["documents"] for reason in by.values())
            for step, by in ledger["dropped"].items()
        },
        **dict(sorted(books.counts.items())),
    }
    certified = json.loads((out / "decontamination.json").read_text(encoding="utf-8"))
    if certified["texts"]:
        metrics["decontamination"] = certified
    if (out / "truth.json").exists():
        truth = json.loads((out / "truth.json").read_text(encoding="utf-8"))
        names = ("quality", "dedup", "decontamination", "personal_data", "kept")
        metrics["truth"] = {
            name: {key: truth[name][key] for key in ("precision", "recall")} for name in names
        }
    return metrics
