"""The sample crawl: WARC files of generated pages with known faults, and the truth about each page.

`truth.jsonl` has a line for every page: url, language, charset, kind, whether a corpus should keep
it, the url it is a duplicate of, the personal data and the evaluation problems in it, main text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from stages.examples import Config, planted
from stages.examples.charset import Encoding, draw_encoding, encodable, typeset
from stages.examples.html import draw_site, to_html
from stages.examples.pages.page import Page
from stages.examples.pages.write import write_page
from stages.examples.warc import WarcWriter, gzip_member
from stages.stage import Context, Metrics
from stages.tasks.problem import Problem

PROBLEMS_PER_LEAK = 3


@dataclass(frozen=True)
class Response:
    """A page as it is stored: its address, its bytes with their labels, and its main text there."""

    url: str
    page: Page
    encoding: Encoding
    text: str
    body: bytes
    compressed: bool


def draw_pages(config: Config, seed: int, leaked: Sequence[Problem]) -> list[Page]:
    """All pages, shuffled; a duplicate's `of` holds the index (as text) of its original "
    "in the list."""
    random = Random(f"crawl {seed}")
    counts = {kind: max(1, round(config.pages * s)) for kind, s in planted.SHARES.items()}
    good = config.pages - sum(counts.values())

    def language() -> str:
        return "zh" if random.random() < config.chinese_share else "en"

    pages = [write_page(random, language(), config.largest_number) for _ in range(good)]
    originals = random.sample(range(good), counts["exact_duplicate"] + counts["near_duplicate"])
    for number, index in enumerate(originals):
        exact = number < counts["exact_duplicate"]
        copy = pages[index] if exact else planted.near_duplicate(random, pages[index])
        kind = "exact_duplicate" if exact else "near_duplicate"
        pages.append(replace(copy, kind=kind, keep=False, of=str(index)))
    for kind, make in (("spam", planted.spam), ("gibberish", planted.gibberish)):
        for _ in range(counts[kind]):
            pages.append(replace(make(random, language()), kind=kind, keep=False))
    for _ in range(counts["personal_data"]):
        page = write_page(random, language(), config.largest_number)
        pages.append(replace(planted.with_personal_data(random, page), kind="personal_data"))
    pages += _leaks(random, leaked, counts["leak"])
    return _shuffled(random, pages)


def _leaks(random: Random, problems: Sequence[Problem], count: int) -> list[Page]:
    pages = []
    for number in range(count):
        language = "zh" if number % 4 == 3 else "en"
        pool = [problem for problem in problems if problem.language == language]
        if not pool:
            continue
        drawn = random.sample(pool, min(PROBLEMS_PER_LEAK, len(pool)))
        page = planted.leak(random, drawn, language, edited=number % 2 == 1)
        pages.append(replace(page, kind="leak", keep=False))
    return pages


def _shuffled(random: Random, pages: list[Page]) -> list[Page]:
    order = list(range(len(pages)))
    random.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    shuffled = [pages[old] for old in order]
    return [replace(p, of=str(place[int(p.of)])) if p.of is not None else p for p in shuffled]


def encode_page(random: Random, page: Page, number: int) -> Response:
    """The page as some site would store it."""
    encoding = draw_encoding(random, page.language)
    site = draw_site(random, page.language)
    text = typeset(page.text, encoding.charset)
    document = to_html(random, page, site, encoding.meta)
    document = typeset(document, encoding.charset)
    if not encodable(document, encoding.charset):
        encoding, text = Encoding("utf-8", "utf-8", None), page.text
        document = to_html(random, page, site, None)
    body = document.encode(encoding.charset)
    compressed = random.random() < 0.03
    url = f"http://{site.host}/{page.topic}/{number}.html"
    return Response(url, page, encoding, text, body, compressed)


def write_crawl(config: Config, context: Context, leaked: Sequence[Problem]) -> Metrics:
    """Write `crawl-*.warc.gz` and `truth.jsonl`; the last file ends in the middle of a record."""
    pages = draw_pages(config, context.seed, leaked)
    random = Random(f"crawl bytes {context.seed}")
    responses = [encode_page(random, page, number) for number, page in enumerate(pages)]
    size = 0
    for file in range(config.files):
        writer = WarcWriter(context.out / f"crawl-{file:05d}.warc.gz")
        for response in responses[file :: config.files]:
            _store(writer, response)
        _store_other(writer, file)
        last = file == config.files - 1
        if last:
            _store(writer, replace(responses[0], url="http://lore.example.org/cut/short.html"))
        size += writer.close(cut_bytes=200 if last else 0)
        context.progress(file + 1, config.files, "files")
    with (context.out / "truth.jsonl").open("w", encoding="utf-8") as truth:
        for response in responses:
            truth.write(json.dumps(_truth(response, responses), ensure_ascii=False) + "\n")
    return _metrics(responses, size)


def _store(writer: WarcWriter, response: Response) -> None:
    label = response.encoding.header
    head = {"Content-Type": "text/html" + (f"; charset={label}" if label else "")}
    body = response.body
    if response.compressed:
        head["Content-Encoding"] = "gzip"
        body = gzip_member(body)
    writer.request(response.url)
    writer.response(response.url, head, body)


def _store_other(writer: WarcWriter, file: int) -> None:
    """What is not a page: a picture, a document, a page that was not found."""
    host = "http://lore.example.org"
    picture = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
    writer.response(f"{host}/logo-{file}.png", {"Content-Type": "image/png"}, picture)
    document = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
    writer.response(f"{host}/form-{file}.pdf", {"Content-Type": "application/pdf"}, document)
    missing = b"<html><head><title>Not found</title></head><body><p>Not found.</p></body></html>"
    writer.response(f"{host}/gone-{file}.html", {"Content-Type": "text/html"}, missing, status=404)


def _truth(response: Response, responses: Sequence[Response]) -> dict[str, object]:
    page = response.page
    return {
        "url": response.url,
        "language": page.language,
        "charset": response.encoding.charset,
        "kind": page.kind,
        "keep": page.keep,
        "of": responses[int(page.of)].url if page.of is not None else None,
        "pii": page.pii,
        "problems": page.problems,
        "text": response.text,
    }


def _metrics(responses: Sequence[Response], size: int) -> Metrics:
    return {
        "pages": len(responses),
        "kinds": dict(Counter(response.page.kind for response in responses)),
        "languages": dict(Counter(response.page.language for response in responses)),
        "text_bytes": sum(len(response.text.encode()) for response in responses),
        "bytes": size,
    }
