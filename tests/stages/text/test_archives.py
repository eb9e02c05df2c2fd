"""Archives: every record once, damage quarantined, the rest read."""

from __future__ import annotations

import gzip
import itertools
import random
from pathlib import Path

import lz4.frame
import pytest
from backports import zstd

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


def test_line_ends_between_members_are_no_damage(tmp_path: Path) -> None:
    members = [gzip.compress(record(f"http://a.org/{n}", b"<p>t</p>")) for n in range(3)]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(members[0] + b"\n" + members[1] + b"\r\n\r\n" + members[2])
    found = read_archive(path)
    assert [type(r) for r in found] == [Page] * 3
    assert [r.offset for r in found] == [0, len(members[0]) + 1, sum(map(len, members[:2])) + 5]


def test_a_gzip_body_that_no_header_tells_is_unpacked(tmp_path: Path) -> None:
    path = write_warc(
        tmp_path / "a.warc.gz",
        [
            record("http://a.org/1", gzip.compress(b"<p>text</p>")),
            record("http://a.org/2", gzip.compress(b"<p>text</p>" * 99)[:-20]),
        ],
    )
    whole, cut = read_archive(path)
    assert isinstance(whole, Page) and whole.body == b"<p>text</p>"
    assert isinstance(cut, Damaged) and cut.reason == "bad_content_coding"


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


def packed(records: list[bytes], codec: str) -> bytes:
    if codec == "plain":
        return b"".join(records)
    if codec == "one gzip member":
        return gzip.compress(b"".join(records))
    pack = {"gzip": gzip.compress, "zstd": zstd.compress, "lz4": lz4.frame.compress}[codec]
    return b"".join(pack(r) for r in records)


@pytest.mark.parametrize("codec", ["plain", "gzip", "zstd", "lz4", "one gzip member"])
def test_every_compression_gives_the_same_records(tmp_path: Path, codec: str) -> None:
    records = [record(f"http://a.org/{n}", b"<p>" + bytes([65 + n]) * 3000) for n in range(30)]
    path = tmp_path / "a.warc"
    path.write_bytes(packed(records, codec))
    found = read_archive(path)
    assert [r.url for r in found if isinstance(r, Page)] == [f"http://a.org/{n}" for n in range(30)]
    assert len({r.offset for r in found}) == 30
    path.write_bytes(path.read_bytes()[: -len(packed(records[-1:], codec)) // 2 or None])
    found = read_archive(path)
    assert [type(r) for r in found].count(Damaged) == 1 and isinstance(found[-1], Damaged)
    assert len(found) >= (2 if codec == "one gzip member" else 29)


@pytest.mark.parametrize("codec", ["plain", "gzip", "zstd", "lz4"])
@pytest.mark.parametrize("seed", range(12))
def test_what_damage_does_not_touch_is_read(tmp_path: Path, codec: str, seed: int) -> None:
    """Some bytes overwritten, cut out or put in: the records elsewhere come out, each once."""
    source = random.Random(seed)
    records = [
        record(f"http://a.org/{n}", b"<p>" + source.randbytes(400).hex().encode())
        for n in range(20)
    ]
    members = [packed([r], codec) for r in records]
    whole = b"".join(members)
    ends = list(itertools.accumulate(map(len, members)))
    at = source.randrange(len(whole) - 60)
    noise = source.randbytes(source.randrange(1, 60))
    touched = {n for n, end in enumerate(ends) if end - len(members[n]) < at + 64 and end + 4 > at}
    cut = source.choice([0, len(noise), source.randrange(1, 60)])
    path = tmp_path / "a.warc"
    path.write_bytes(whole[:at] + noise[: 0 if cut and seed % 3 == 0 else None] + whole[at + cut :])
    found = read_archive(path)
    urls = [r.url for r in found if isinstance(r, Page)]
    sound = [f"http://a.org/{n}" for n in range(20) if n not in touched]
    assert [url for url in urls if url in sound] == sound
    assert len(urls) == len(set(urls))
    assert 20 - len(urls) <= len(touched)
    assert all(0 <= r.offset < path.stat().st_size for r in found)


def test_a_zstd_archive_with_its_dictionary_in_front(tmp_path: Path) -> None:
    records = [record(f"http://a.org/{n}", b"<p>the same words %d" % n) for n in range(200)]
    words = zstd.train_dict(records, 2048)
    frames = b"".join(zstd.compress(r, zstd_dict=words) for r in records)
    content = words.dict_content
    for inside in (content, zstd.compress(content)):
        front = b"\x5d\x2a\x4d\x18" + len(inside).to_bytes(4, "little") + inside
        path = tmp_path / "a.warc.zst"
        path.write_bytes(front + frames)
        assert len([r for r in read_archive(path) if isinstance(r, Page)]) == 200


def test_a_length_that_lies_costs_its_record_only(tmp_path: Path) -> None:
    def lie(data: bytes, by: int) -> bytes:
        head, _, rest = data.partition(b"Content-Length: ")
        length, _, rest = rest.partition(b"\r\n")
        return head + b"Content-Length: %d\r\n" % (int(length) + by) + rest

    for codec in ("plain", "gzip", "one gzip member"):
        for by in (-20, 6, 20, 300, 10**9):
            records = [record(f"http://a.org/{n}", b"<p>" + b"text " * 50) for n in range(4)]
            records[1] = lie(records[1], by)
            path = tmp_path / "a.warc"
            path.write_bytes(packed(records, codec))
            found = read_archive(path)
            urls = [r.url[-1] for r in found if isinstance(r, Page)]
            assert urls == ["0", "2", "3"], (codec, by)
            (damaged,) = [r for r in found if isinstance(r, Damaged)]
            assert damaged.url == "http://a.org/1" and damaged.reason == "bad_length"
