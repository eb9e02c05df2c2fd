"""The corpus stage's run: units in parallel, duplicates over all of them, then the documents and
books.

A killed run is started again with the same command: committed units and partitions are found in
`context.scratch` and not read again, and the files that come out are the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq

from cluster.artifact import Artifact
from cluster.errors import UserError
from stages.corpus import Config
from stages.corpus.boilerplate import LineCounter, repeated_lines
from stages.corpus.duplicates import PartitionWorker, Units, duplicate_reasons, survivors_of
from stages.corpus.ledger import Ledger
from stages.corpus.screen import check_screening, quality_overrides, screen_settings
from stages.corpus.sources import Job, find_jobs
from stages.corpus.stream import stream
from stages.corpus.truth import measure, read_truth
from stages.corpus.unit import PARTITIONS, Settings, UnitWorker
from stages.stage import Context, Inputs, Metrics, StageConfig, several
from stages.tasks.problem import read_problems
from stages.text.decontamination import Decontaminator, certificate
from stages.text.documents import Document, read_file, write_documents
from stages.text.quality import check_overrides


def run(config: StageConfig, inputs: Inputs, context: Context) -> Metrics:
    """Write the corpus into `context.out`; returns the metrics."""
    config = cast(Config, config)
    check_screening(config, config.languages)
    check_overrides(quality_overrides(config))
    crawls = several(inputs, "crawls")
    jobs = find_jobs(crawls, config.sources)
    settings = _settings(config, several(inputs, "decontaminate"))
    workers = _workers(config, context)
    settings = _with_boilerplate(jobs, settings, context, workers)
    folders = _read_units(jobs, settings, context, workers)
    reasons = _find_duplicates(folders, config, context, workers)
    return _write_corpus(config, settings, crawls, folders, reasons, context)


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
        extractor=config.extractor,
        screen=screen_settings(config),
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
    return config.workers or session.cores()


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
    make = partial(UnitWorker, settings, folder)
    for number in stream(make, waiting, workers, weights):
        count, done = count + 1, done + weights[number]
        context.progress(done, total, f"{count} of {len(jobs)} units")
    return [folder / job.folder for job in jobs]


def _find_duplicates(
    folders: Sequence[Path], config: Config, context: Context, workers: int
) -> dict[int, str]:
    """Document number -> why it is dropped as a duplicate."""
    out = context.scratch / "duplicates"
    out.mkdir(exist_ok=True)
    waiting = [p for p in range(PARTITIONS) if not (out / f"edges-{p:03d}.npy").exists()]
    units = Units(folders)
    # Comparing takes far less than starting actors until there are many documents.
    workers = workers if units.starts[-1] > 50_000 else 0
    make = partial(PartitionWorker, folders, out, config.duplicate_similarity)
    for _ in stream(make, waiting, workers):
        pass
    return duplicate_reasons(units, survivors_of(out))


def is_heldout(document_id: str, fraction: float) -> bool:
    """Whether a document is held out: by the hash of its id, so it is the same in every run."""
    number = int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "big")
    return number < fraction * 2**64


class _Books:
    """What is added up while the units are gone through once: ledger, outcomes of crawls, texts."""

    def __init__(self, truth_urls: set[str]) -> None:
        self.ledger = Ledger()
        self.truth_urls = truth_urls
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.texts: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()

    def add(self, rows: list[dict[str, Any]]) -> None:
        self.ledger.add(rows)
        for row in rows:
            if row["step"] == "decontamination":
                self.hits[row["reason"]] += 1
            if row["url"] in self.truth_urls:
                self.outcomes[row["url"]] = row


def _write_corpus(
    config: Config,
    settings: Settings,
    crawls: Sequence[Artifact],
    folders: Sequence[Path],
    reasons: dict[int, str],
    context: Context,
) -> Metrics:
    truth = [page for crawl in crawls for page in read_truth(crawl.path)]
    books = _Books({page["url"] for page in truth})
    documents = _survivors(folders, reasons, config, books)
    files, batch = 0, []
    for document in documents:
        batch.append(document)
        if len(batch) == config.documents_per_file:
            write_documents(batch, context.out / f"documents-{files:05d}.parquet")
            files, batch = files + 1, []
    if batch or not files:
        write_documents(batch, context.out / f"documents-{files:05d}.parquet")
    if not books.ledger.total("kept")["documents"]:
        raise UserError(_nothing_kept(books.ledger.as_json(), folders))
    _write_books(settings, books, truth, folders, context.out)
    return _metrics(books, context.out)


def _survivors(
    folders: Sequence[Path], reasons: dict[int, str], config: Config, books: _Books
) -> Iterator[Document]:
    """The documents that stay, in crawl order, while the books are kept."""
    number = 0
    for folder in folders:
        rows = pq.read_table(folder / "outcomes.parquet").to_pylist()
        fate = {row["id"]: row for row in rows if row["step"] == "kept"}
        for document in read_file(folder / "documents.parquet"):
            reason = reasons.get(number)
            number += 1
            if reason is not None:
                fate[document.id] |= {"step": "dedup", "reason": reason}
                continue
            split = "heldout" if is_heldout(document.id, config.heldout_fraction) else "train"
            books.counts[f"{split}_documents"] += 1
            books.counts[f"{split}_bytes"] += len(document.text.encode("utf-8", "replace"))
            books.counts[f"documents_{document.language}"] += 1
            if document.url in books.truth_urls:
                books.texts[document.url] = document.text
            yield Document(
                document.id, document.text, document.url, document.source, document.language, split,
                document.offset,
            )  # fmt: skip
        books.add(rows)


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


def _write_books(
    settings: Settings,
    books: _Books,
    truth: list[dict[str, Any]],
    folders: Sequence[Path],
    out: Path,
) -> None:
    def write(name: str, value: Any) -> None:
        (out / name).write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")

    write("ledger.json", books.ledger.as_json())
    if truth:
        write("truth.json", measure(truth, books.outcomes, books.texts))
    search = Decontaminator(settings.evaluation, settings.training)
    write("decontamination.json", certificate(search, settings.evaluation, books.hits))
    masked: Counter[str] = Counter()
    for name in ("dropped.jsonl", "quarantine.jsonl"):
        with (out / name).open("w", encoding="utf-8") as file:
            for folder in folders:
                for line in (folder / name).read_text(encoding="utf-8").splitlines():
                    file.write(
                        json.dumps({"unit": folder.name} | json.loads(line), ensure_ascii=False)
                        + "\n"
                    )
    for folder in folders:
        masked.update(json.loads((folder / "counts.json").read_text())["masked"])
    write("personal_data.json", {"masked_before_dedup": dict(sorted(masked.items()))})


def _metrics(books: _Books, out: Path) -> Metrics:
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
