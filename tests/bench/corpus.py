"""The corpus end to end, megabytes of archive content per CPU-second (that is, per core): ours
against datatrove's local executor on the same WARC files.

Both read, extract, filter (Gopher repetition and quality, C4, FineWeb), mask personal data, compute
MinHash signatures and write. Ours also names the language, searches for evaluation text, finds the
duplicates and keeps a ledger; datatrove's language filter wants a download, and the three further
stages of its dedup are left out, both in its favour. Once with trafilatura on both sides, then with
each side's default extractor (ours is resiliparse).
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from random import Random

from stages.corpus import STAGE, Config
from stages.stage import Context
from stages.text.prose import read_packages
from tests.bench.harness import compare, cpu_rate
from tests.stages.corpus.crawl import english, html, record, write_warc

FILES, PAGES = 2, 120
ROUNDS = 3


@cache
def paragraphs() -> list[str]:
    """The prose of installed packages, a paragraph each."""
    return [
        paragraph
        for page in read_packages(["networkx", "pydantic", "numpy"])
        for paragraph in (page.text or "").split("\n\n")
        if len(paragraph) > 80
    ]


def write_crawl(folder: Path, seed: int, files: int = FILES, pages: int = PAGES) -> float:
    """Pages of prose in HTML with navigation; returns their megabytes."""
    source, size = Random(seed), 0
    for number in range(files):
        records = []
        for page in range(pages):
            start = source.randrange(len(paragraphs()) - 12)
            text = "\n".join([*paragraphs()[start : start + 8], english(number * pages + page)])
            body = html(text.replace("<", "&lt;"))
            size += len(body)
            records.append(record(f"http://{number}.org/{page}", body))
        write_warc(folder / f"crawl-{number:05d}.warc.gz", records)
    return size / 1e6


def datatrove(crawl: Path, out: Path) -> None:
    """FineWeb's pipeline as datatrove ships it, in this process and its extractor's child."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import MinhashDedupSignature
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.pipeline.readers import WarcReader
    from datatrove.pipeline.writers import JsonlWriter

    LocalPipelineExecutor(
        [
            WarcReader(str(crawl), glob_pattern="*.warc.gz"),
            Trafilatura(favour_precision=True, timeout=60),
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False),
            FineWebQualityFilter(),
            PIIFormatter(),
            JsonlWriter(str(out / "text")),
            MinhashDedupSignature(str(out / "signatures")),
        ],
        tasks=1, workers=1, logging_dir=str(out / "logs"),
    ).run()  # fmt: skip


def sides(
    folder: Path, extractor: str, seed: int
) -> tuple[Callable[[], float], Callable[[], float]]:
    """Ours and datatrove's; each call takes pages that neither has seen before."""
    crawls = [folder / f"crawl-{seed + turn}" for turn in range(ROUNDS + 1)]
    megabytes = [write_crawl(crawl, seed + turn) for turn, crawl in enumerate(crawls)]
    our_turn, peer_turn = count(), count()

    def ours() -> float:
        turn = next(our_turn)
        source = {"path": str(crawls[turn]), "name": "crawl"}
        config = Config.model_validate({"sources": [source], "workers": 0, "extractor": extractor})
        work = folder / f"ours-{seed + turn}"
        for part in ("out", "scratch"):
            (work / part).mkdir(parents=True)
        context = Context(seed=17, out=work / "out", scratch=work / "scratch")
        STAGE.run(config, {"crawls": [], "decontaminate": []}, context)
        shutil.rmtree(work)
        return megabytes[turn]

    def peer() -> float:
        turn = next(peer_turn)
        work = folder / f"peer-{seed + turn}"
        datatrove(crawls[turn], work)
        shutil.rmtree(work)
        return megabytes[turn]

    return ours, peer


def main() -> None:
    from loguru import logger

    logger.remove()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        for title, extractor, seed in (
            ("corpus with trafilatura", "trafilatura", 17),
            ("corpus", "resiliparse", 37),
        ):
            ours, peer = sides(Path(name), extractor, seed)
            compare(title, ours, peer, "MB/CPU-s", rounds=ROUNDS, rate=cpu_rate)


if __name__ == "__main__":
    main()
