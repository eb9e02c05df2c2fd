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
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

from stages.corpus import STAGE, Config
from stages.stage import Context
from stages.text.prose import read_packages
from tests.bench.harness import compare, cpu_rate
from tests.stages.corpus.crawl import english, html, record, write_warc

FILES, PAGES = 2, 120


def write_crawl(folder: Path) -> float:
    """Pages of prose in HTML with navigation; returns their megabytes."""
    paragraphs = [
        paragraph
        for page in read_packages(["networkx", "pydantic", "numpy"])
        for paragraph in (page.text or "").split("\n\n")
        if len(paragraph) > 80
    ]
    source, size = Random(17), 0
    for number in range(FILES):
        records = []
        for page in range(PAGES):
            start = source.randrange(len(paragraphs) - 12)
            text = "\n".join([*paragraphs[start : start + 8], english(number * PAGES + page)])
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


def main() -> None:
    from loguru import logger

    logger.remove()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder, turn = Path(name), count()
        megabytes = write_crawl(folder / "crawl")
        source = {"path": str(folder / "crawl"), "name": "crawl"}

        def ours(extractor: str) -> float:
            config = Config.model_validate(
                {"sources": [source], "workers": 0, "extractor": extractor}
            )
            work = folder / f"ours-{next(turn)}"
            for part in ("out", "scratch"):
                (work / part).mkdir(parents=True)
            context = Context(seed=17, out=work / "out", scratch=work / "scratch")
            STAGE.run(config, {"crawls": [], "decontaminate": []}, context)
            shutil.rmtree(work)
            return megabytes

        def peer() -> float:
            work = folder / f"peer-{next(turn)}"
            datatrove(folder / "crawl", work)
            shutil.rmtree(work)
            return megabytes

        for name, extractor in (
            ("corpus with trafilatura", "trafilatura"),
            ("corpus", "resiliparse"),
        ):
            compare(name, partial(ours, extractor), peer, "MB/CPU-s", rounds=3, rate=cpu_rate)


if __name__ == "__main__":
    main()
