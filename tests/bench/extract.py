"""Main text of real pages: ours beside the defaults of resiliparse and trafilatura.

On trafilatura's own evaluation set (482 pages with strings that must and must not be in the text):
precision, recall and F1 over those strings, CPU-seconds, and how many megabytes of HTML a
CPU-second takes beside trafilatura (the extractor that datatrove runs by default). On pages of
Python's and PostgreSQL's manuals: the share of code blocks that stay line by line with their
indentation, and of table rows that stay on a line of their own.
"""

from __future__ import annotations

import json
import re
import tarfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from resiliparse.parse.html import HTMLTree

from stages.text import charset, extraction
from tests import real_text
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


def manual_pages(count: int = 40, most_chars: int = 60_000) -> list[str]:
    """So many pages of each manual, none very long, that have code or a table of data."""
    found: list[str] = []
    for name in ("python3.11-doc-html-and-rst", "postgresql-doc-15-html"):
        pages = (
            html
            for _, body in real_text.members(f"debian/{name}.tar.xz", ".html")
            if len(html := body.decode("utf-8", "replace")) < most_chars
            and re.search(r'<pre|<table class="(?:table|docutils)', html)
        )
        found += islice(pages, count)
    return found


def code_blocks(html: str) -> list[list[str]]:
    """The lines of each block that are not empty."""
    blocks = HTMLTree.parse(html).body.query_selector_all("pre")
    found = [_lines(block.text) for block in blocks]
    return [lines for lines in found if lines]


def table_rows(html: str) -> list[list[str]]:
    """The cells of each row of a table of data; a row of one cell is none."""
    rows = HTMLTree.parse(html).body.query_selector_all("table.table tr, table.docutils tr")
    found = [
        [plain(cell.text).strip() for cell in row.query_selector_all("td, th")] for row in rows
    ]
    return [cells for cells in found if len(cells) > 1]


def _lines(text: str) -> list[str]:
    return [line.expandtabs(4).rstrip() for line in text.split("\n") if line.strip()]


def has_block(text: Sequence[str], block: Sequence[str]) -> bool:
    """Whether the block's lines follow each other in the text, all indented alike."""
    for at, line in enumerate(text):
        margin = line.removesuffix(block[0])
        if margin.strip() == "" and [margin + part for part in block] == list(
            text[at : at + len(block)]
        ):
            return True
    return False


def has_row(text: Sequence[str], cells: Sequence[str]) -> bool:
    """Whether a line has the cells in their order."""
    row = re.compile(r"[\s|]*".join(re.escape(cell).replace(r"\ ", r"\s+") for cell in cells))
    return any(row.search(line) for line in text if cells[0][:8] in line)


def structure(extract: Extract, html: Sequence[str]) -> dict[str, float]:
    """The shares of code blocks and of table rows that stay."""
    found = {"code": [0, 0], "rows": [0, 0]}
    for page in html:
        text = _lines(extract(page) or "")
        for block in code_blocks(page):
            found["code"][0] += has_block(text, block)
            found["code"][1] += 1
        for cells in table_rows(page):
            found["rows"][0] += has_row(text, cells)
            found["rows"][1] += 1
    return {name: round(kept / max(1, of), 4) for name, (kept, of) in found.items()} | {
        "of_code": found["code"][1], "of_rows": found["rows"][1]
    }  # fmt: skip


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
    manuals = manual_pages()
    for name, side in extract.items():
        row = structure(side, manuals)
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
