"""Documents out of real public texts in several languages, for comparisons over many of them.

They are read in place from ../shared/data: Debian's manuals, PostgreSQL's and Python's, C4 and
Wikipedia samples, the King James Bible, Chinese poems and instructions. Long texts are also cut
into pieces of a few paragraphs, so that there are short and long documents of each kind.
"""

from __future__ import annotations

import json
import lzma
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import pytest

from stages.text import extraction

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.exists(), reason=f"real data is not there: no folder {SHARED}"
)
HANDBOOK = {"en-US": "en", "zh-CN": "zh", "zh-TW": "zh", "de-DE": "de", "fr-FR": "fr",
            "es-ES": "es", "ru-RU": "ru"}  # fmt: skip
Text = tuple[str, str]
"""Language and text."""


def members(archive: str, ending: str) -> Iterator[tuple[str, bytes]]:
    """(name, content) of an archive's files whose names end so, in the archive's order."""
    with tarfile.open(SHARED / archive) as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(ending):
                file = tar.extractfile(member)
                if file is not None:
                    yield member.name, file.read()


def page_text(html: bytes) -> str:
    """The main text as the corpus stage takes it."""
    return extraction.tidy(extraction.extract_main_text(html.decode("utf-8", "replace")))


def handbook(*folders: str) -> Iterator[Text]:
    """The pages of Debian's handbook in these languages (all that are known if none is named)."""
    for name, html in members("debian/debian-handbook-html-26lang.tar.xz", ".html"):
        folder = name.split("/html/")[-1].split("/")[0]
        if folder in (folders or HANDBOOK):
            yield HANDBOOK[folder], page_text(html)


def reference(*languages: str) -> Iterator[Text]:
    """The chapters of Debian's reference; its language codes are zh-cn, zh-tw, de, fr ..."""
    for name, html in members("debian/debian-reference-9lang.tar.xz", ".html"):
        language = name.rsplit(".", 2)[-2]
        if language in languages:
            yield language[:2], page_text(html)


def frequent_questions() -> Iterator[Text]:
    """Debian's FAQ and its guide for maintainers, in English and Chinese."""
    for name, html in members("debian/maint-guide-debian-faq-en-zh.tar.xz", ".html"):
        yield ("zh" if "zh-cn" in name or "zh-tw" in name else "en"), page_text(html)


def common_crawl() -> Iterator[Text]:
    """C4's sample: English pages of the web."""
    for line in (SHARED / "corpus/llamafactory/c4_demo.jsonl").read_text("utf-8").splitlines():
        yield "en", json.loads(line)["text"]


def _english() -> Iterator[Text]:
    for name in ("postgresql-doc-15-html", "anarchism-faq-html", "vim-doc-html"):
        for _, html in members(f"debian/{name}.tar.xz", ".html"):
            yield "en", page_text(html)
    for _, body in members("debian/python3.11-doc-html-and-rst.tar.xz", ".txt"):
        yield "en", body.decode("utf-8", "replace")
    yield from common_crawl()
    for path in sorted((SHARED / "corpus/dolma").rglob("cc_en_head-*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            yield "en", json.loads(line)["text"]
    yield "en", lzma.decompress((SHARED / "corpus/kjv/kjv.txt.xz").read_bytes()).decode()


def _chinese() -> Iterator[Text]:
    poems: list[str] = []
    for _, body in members("corpus/chinese-poetry.tar.xz", ".json"):
        rows = json.loads(body)
        for row in rows if isinstance(rows, list) else []:
            lines = row.get("paragraphs") if isinstance(row, dict) else None
            if lines:
                poems.append("\n".join(lines))
    for at in range(0, len(poems), 6):
        yield "zh", "\n\n".join(poems[at : at + 6])
    path = SHARED / "corpus/data-juicer/demos/process_cft_zh_data/data/alpaca-cot.jsonl"
    for line in path.read_text("utf-8").splitlines():
        yield "zh", json.loads(line)["text"]


def _pieces(random: Random, text: str) -> Iterator[str]:
    """The text, and if it is long its paragraphs in groups of 300 to 6000 characters."""
    if len(text) <= 60_000:
        yield text
    if len(text) < 1500:
        return
    piece: list[str] = []
    wanted, size = random.randint(300, 6000), 0
    for paragraph in text.split("\n"):
        piece.append(paragraph)
        size += len(paragraph) + 1
        if size >= wanted:
            yield "\n".join(piece)
            piece, wanted, size = [], random.randint(300, 6000), 0
    yield "\n".join(piece)


def _drawn(sources: Iterable[Iterator[Text]], seed: int) -> list[Text]:
    """Every text of the sources and its pieces, shuffled."""
    random = Random(seed)
    found = [
        (language, piece)
        for source in sources
        for language, text in source
        for piece in _pieces(random, text)
        if piece.strip()
    ]
    random.shuffle(found)
    return found


def documents(count: int, seed: int = 17) -> list[Text]:
    """`count` documents, or all there are (some 22,700), in an order drawn from the seed."""
    everything = (
        handbook(),
        reference("en", "zh-cn", "zh-tw", "de", "fr"),
        frequent_questions(),
        _english(),
        _chinese(),
    )
    return _drawn(everything, seed)[:count]


def few_documents(count: int, seed: int = 17) -> list[Text]:
    """`count` documents, at most some 1,500, of what is read in a second or two."""
    few = (reference("zh-cn", "de", "fr"), frequent_questions(), common_crawl())
    return _drawn(few, seed)[:count]
