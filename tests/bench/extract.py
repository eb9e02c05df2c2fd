"""Main text of real pages: ours beside the defaults of resiliparse and trafilatura.

On trafilatura's own evaluation set (482 pages with strings that must and must not be in the text):
precision, recall and F1 over those strings, CPU-seconds, and how many megabytes of HTML a
CPU-second takes beside trafilatura (the extractor that datatrove runs by default).
"""

from __future__ import annotations

import json
import re
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from stages.text import charset, extraction
from tests.bench.harness import compare

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "html_extraction"
Extract = Callable[[str], str | None]


def pages() -> dict[str, str]:
    """File name -> HTML as text."""
    with tarfile.open(DATA / "pages.tar.xz") as archive:
        return {
            Path(member.name).name: charset.decode(content.read())[0]
            for member in archive
            if member.isfile() and (content := archive.extractfile(member)) is not None
        }


def annotations() -> list[tuple[str, list[str], list[str]]]:
    """(file, strings that must be in the text, strings that must not)."""
    rows = json.loads((DATA / "annotations.json").read_text(encoding="utf-8"))
    return [(row["file"], row["with"], row["without"]) for row in rows.values()]


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def score(extract: Extract, html: dict[str, str]) -> dict[str, float]:
    """Precision, recall and F1 over the annotated strings, and the CPU-seconds taken."""
    found = {"with": 0, "missing": 0, "without": 0}
    seconds = 0.0
    for file, wanted, unwanted in annotations():
        begin = time.process_time()
        text = extract(html[file]) or ""
        seconds += time.process_time() - begin
        text = plain(text)
        hits = sum(plain(part) in text for part in wanted)
        found["with"] += hits
        found["missing"] += len(wanted) - hits
        found["without"] += sum(plain(part) in text for part in unwanted)
    precision = found["with"] / max(1, found["with"] + found["without"])
    recall = found["with"] / max(1, found["with"] + found["missing"])
    return {
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "f1": round(2 * precision * recall / max(1e-9, precision + recall), 4),
        "cpu_s": round(seconds, 2),
    }


def sides() -> dict[str, Extract]:
    import trafilatura
    from resiliparse.extract.html2text import extract_plain_text

    return {
        "resiliparse, its defaults": extract_plain_text,
        "resiliparse, main_content=True": lambda html: extract_plain_text(html, main_content=True),
        "resiliparse, ours": lambda html: extraction.extract_main_text(html, "resiliparse"),
        "trafilatura, its defaults": trafilatura.extract,
        "trafilatura, ours": lambda html: extraction.extract_main_text(html, "trafilatura"),
    }


def main() -> None:
    if not DATA.exists():
        print(f"extract: needs the annotated pages in {DATA}, which are not on this machine")
        return
    html, extract = pages(), sides()
    for name, side in extract.items():
        row = score(side, html)
        print(f"{name:32}", *(f"{key} {value:<7}" for key, value in row.items()))
    sample = [html[name] for name in sorted(html)[:60]]
    megabytes = sum(map(len, sample)) / 1e6

    def work(side: Extract) -> Callable[[], float]:
        def run() -> float:
            for page in sample:
                side(page)
            return megabytes

        return run

    def cpu_rate(run: Callable[[], float]) -> float:
        begin = time.process_time()
        return run() / (time.process_time() - begin)

    ours, peer = extract["resiliparse, ours"], extract["trafilatura, its defaults"]
    compare("extract", work(ours), work(peer), "MB/CPU-s", rounds=2, rate=cpu_rate)


if __name__ == "__main__":
    main()
