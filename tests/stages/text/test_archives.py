"""Archives: every record once, damage quarantined, the rest read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from stages.text.archives import read_archive as read_file
from stages.text.http import decode_content, parse_response
from stages.text.records import MAX_PAGE_BYTES, Damaged, Page, Record, Skipped
from tests.stages.corpus.crawl import record, write_warc


def read_archive(path: Path, max_page_bytes: int = MAX_PAGE_BYTES) -> list[Record]:
    with path.open("rb") as file:
        return list(read_file(file, max_page_bytes))


def test_damage_in_the_middle_costs_one_record(tmp_path: Path) -> None:
    records = [record(f"http://a.org/{n}", b"<p>text</p>" * 5) for n in range(5)]
    broken = b"WARC/1.0\r\nthis header has no end and no colon\r\n" + b"x" * 50 + b"\r\n\r\n"
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join([*records[:2], broken, *records[2:]]))
    found = list(read_archive(path))
    pages = [r.url for r in found if isinstance(r, Page)]
    assert pages == [f"http://a.org/{n}" for n in range(5)]
    assert [type(r) for r in found if not isinstance(r, Page)] in ([], [Damaged])


def test_a_damaged_gzip_member_costs_one_record(tmp_path: Path) -> None:
    members = [gzip.compress(record(f"http://a.org/{n}", b"<p>t</p>" * 40)) for n in range(5)]
    members[2] = members[2][:30] + b"\x00" * 20 + members[2][50:]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(members))
    found = list(read_archive(path))
    urls = [r.url for r in found if isinstance(r, Page)]
    assert [u for u in urls if u != "http://a.org/2"] == [f"http://a.org/{n}" for n in (0, 1, 3, 4)]
    damaged = [r for r in found if isinstance(r, Damaged)]
    assert damaged and all(len(members[0]) <= r.offset <= len(b"".join(members)) for r in damaged)


def test_statuses_and_types_are_skipped_with_their_reason(tmp_path: Path) -> None:
    path = write_warc(
        tmp_path / "a.warc.gz",
        [
            record("http://a.org/1", b"gone", "404 Not Found"),
            record("http://a.org/2", b"moved", "302 Found"),
            record("http://a.org/3", b"\x89PNG", media_type="image/png"),
            record("http://a.org/4", b""),
        ],
    )
    found = list(read_archive(path))
    assert all(isinstance(r, Skipped) for r in found)
    assert [r.reason for r in found if isinstance(r, Skipped)] == [
        "http_4xx", "http_3xx", "media_type", "empty",
    ]  # fmt: skip


def test_a_page_over_the_limit_is_quarantined(tmp_path: Path) -> None:
    path = write_warc(tmp_path / "a.warc.gz", [record("http://a.org/1", b"x" * 200_000)])
    assert [r.reason for r in read_archive(path, 1000) if isinstance(r, Damaged)] == [
        "page_too_large"
    ]


def test_arc_records_are_read(tmp_path: Path) -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=gbk\r\n\r\n<p>hello</p>"
    head = b"filedesc://x.arc 0.0.0.0 20080430204825 text/plain 9\n1 0 test\n\n"
    line = f"http://a.org/ 1.2.3.4 20080430204825 text/html {len(body)}\n".encode()
    path = tmp_path / "x.arc.gz"
    path.write_bytes(gzip.compress(head) + gzip.compress(line + body + b"\n"))
    (page,) = read_archive(path)
    assert isinstance(page, Page)
    assert (page.url, page.body, page.charset) == ("http://a.org/", b"<p>hello</p>", "gbk")


@pytest.mark.parametrize("content", [b"", b"not an archive at all", b"\x1f\x8b\x08broken"])
def test_what_is_no_archive_is_damaged_at_once(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.warc.gz"
    path.write_bytes(content)
    (record_,) = read_archive(path)
    assert isinstance(record_, Damaged)


def test_content_codings_and_wrong_chunks() -> None:
    def answer(fields: str, body: bytes) -> bytes:
        response = parse_response(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + body)
        assert response is not None
        return decode_content(response, 1000)

    import zlib

    text = b"some text to code " * 9
    deflate = zlib.compressobj(wbits=-15)
    assert answer("Content-Encoding: gzip", gzip.compress(text)) == text
    assert answer("Content-Encoding: deflate", zlib.compress(text)) == text
    raw = deflate.compress(text) + deflate.flush()
    assert answer("Content-Encoding: deflate", raw) == text
    chunked = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    assert answer("Transfer-Encoding: chunked", chunked) == b"hello world"
    assert answer("Transfer-Encoding: chunked", b"<p>stored plain</p>") == b"<p>stored plain</p>"
    with pytest.raises(ValueError, match="broken gzip"):
        answer("Content-Encoding: gzip", b"no gzip")
    with pytest.raises(ValueError, match="broken gzip"):
        answer("Content-Encoding: gzip", gzip.compress(text)[:-12])
    bomb = gzip.compress(b"\0" * 10_000_000)
    assert len(answer("Content-Encoding: gzip", bomb)) == 1001
