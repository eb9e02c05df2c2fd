"""Small crawls for tests: WARC files of pages, written record by record."""

from __future__ import annotations

import gzip
import uuid
from pathlib import Path

from tests.sample_texts import GOOD_CHINESE, GOOD_ENGLISH

PLACES = ("harbour", "market", "station", "village", "castle", "museum", "library", "theatre")


def html(text: str, charset: str = "utf-8") -> bytes:
    body = "".join(f"<p>{line}</p>" for line in text.split("\n"))
    page = (
        f'<html><head><meta charset="{charset}"><title>t</title></head><body>'
        f"<nav><a href=/>Home</a> <a href=/in>Login</a></nav><main>{body}</main></body></html>"
    )
    return page.encode(charset)


def record(url: str, body: bytes, status: str = "200 OK", media_type: str = "text/html") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\n\r\n".encode()
    block = head + body
    number = uuid.uuid5(uuid.NAMESPACE_URL, url)  # ids settle what is held out: the same always
    fields = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\n"
        f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        "Content-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return fields.encode() + block + b"\r\n\r\n"


def english(number: int) -> str:
    """A good page of its own: names and numbers differ all through the text."""
    text = GOOD_ENGLISH
    for at, word in enumerate(("town", "boats", "visitors", "pier", "Children", "storms", "nets")):
        text = text.replace(word, f"{PLACES[(number + at) % 8]}{number * 7 + at}")
    return text


def chinese(number: int) -> str:
    text = GOOD_CHINESE
    for at, word in enumerate(("北京", "香山", "红薯", "老王", "胡同", "城市", "秋天")):
        text = text.replace(word, f"{'天地玄黄宇宙洪荒'[(number + at) % 8]}{number * 7 + at}号")
    return text


def write_warc(path: Path, records: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(gzip.compress(r, mtime=0) for r in records))
    return path


def sample_crawl(folder: Path) -> Path:
    """Three files: good pages in two languages, duplicates, dirt, and a truncated end."""
    first = [record(f"http://a.org/{n}", html(english(n))) for n in range(6)]
    first += [record(f"http://a.org/zh/{n}", html(chinese(n), "gb18030")) for n in range(4)]
    second = [
        record("http://b.org/copy", html(english(0))),
        record("http://b.org/near", html(english(1) + "\nPrinted in the evening of that day.")),
        record("http://b.org/spam", html("Buy cheap watches now! " * 60)),
        record("http://b.org/gone", b"gone", "404 Not Found"),
        record("http://b.org/image", b"\x89PNG", media_type="image/png"),
        record("http://b.org/german", html("Der Hafen ist das Herz der Stadt am Meer. " * 20)),
        record(
            "http://b.org/pii", html(english(9) + "\nWrite to jane@mail.org or 8.8.8.8, please.")
        ),
        record(
            "http://b.org/leak", html(english(10) + "\nHow many legs do seven red spiders have?")
        ),
    ]
    write_warc(folder / "crawl-00000.warc.gz", first)
    write_warc(folder / "crawl-00001.warc.gz", second)
    whole = write_warc(
        folder / "crawl-00002.warc.gz",
        [record(f"http://c.org/{n}", html(english(20 + n))) for n in range(3)],
    )
    whole.write_bytes(whole.read_bytes()[:-200])
    return folder
