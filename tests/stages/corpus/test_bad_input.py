"""Bad input: everything is quarantined or a clear error, and the ledger counts every record."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections import Counter
from pathlib import Path

import brotli
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from cluster.errors import UserError
from stages.corpus import STAGE, Config
from stages.corpus.source import Source
from stages.corpus.sources import find_jobs
from stages.stage import Context
from stages.text.documents import read_documents
from stages.text.readers import read_unit
from tests.small_disk import small_disk
from tests.stages.corpus.crawl import chinese, english, html, record, write_warc

MIB = 1 << 20


def coded(url: str, body: bytes, coding: str, fields: str = "") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: {coding}\r\n{fields}"
    block = head.encode() + b"\r\n" + body
    return (
        (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\n"
            "Content-Type: application/http; msgtype=response\r\n"
            f"Content-Length: {len(block)}\r\n\r\n"
        ).encode()
        + block
        + b"\r\n\r\n"
    )


def ledger_of(context: Context) -> dict[str, int]:
    """Reason -> records, after checking that in = kept + dropped + quarantined."""
    ledger = json.loads((context.out / "ledger.json").read_text())
    counts = Counter({"kept": ledger["kept"]["documents"]}) + Counter(ledger["quarantined"])
    for by_reason in ledger["dropped"].values():
        counts += Counter({reason: row["documents"] for reason, row in by_reason.items()})
    assert ledger["in"]["documents"] == counts.total()
    return dict(counts) | {"in": counts.total()}


def run(context: Context, *paths: Path, **fields: object) -> dict[str, int]:
    sources = [{"path": str(path), "name": f"s{n}"} for n, path in enumerate(paths)]
    config = Config.model_validate(
        {"sources": sources, "workers": 0, "max_page_bytes": MIB, **fields}
    )
    STAGE.run(config, {"crawls": [], "decontaminate": []}, context)
    return ledger_of(context)


def test_a_crawl_made_to_hurt(tmp_path: Path, context: Context) -> None:
    bomb = gzip.compress(b"\0" * (64 * MIB))
    page = html(english(3))
    records = [
        record("http://ok.org/1", html(english(1))),
        record("http://ok.org/zh", html(chinese(1), "gb18030").replace(b"gb18030", b"utf-8")),
        record("http://ok.org/latin", html(chinese(2), "gb18030").replace(b"gb18030", b"latin-1")),
        record("http://big.org/", b"<p>" + b"x" * (100 * MIB)),
        coded("http://bomb.org/gzip", bomb, "gzip"),
        coded("http://bomb.org/twice", gzip.compress(bomb), "gzip, gzip"),
        coded("http://bomb.org/br", brotli.compress(b"\0" * (64 * MIB), quality=5), "br"),
        coded("http://bomb.org/zstd", zstd.compress(b"\0" * (64 * MIB)), "zstd"),
        coded("http://bomb.org/deflate", zlib.compress(b"\0" * (64 * MIB)), "deflate"),
        coded("http://many.org/", page, "gzip, gzip, gzip, gzip"),
        coded("http://coding.org/br", brotli.compress(html(english(2)), quality=5), "br"),
        coded("http://coding.org/zstd", zstd.compress(page), "zstd"),
        coded("http://coding.org/plain", html(english(4)), "gzip"),
        coded("http://coding.org/cut", gzip.compress(html(english(5)))[:-100], "gzip"),
        coded("http://coding.org/new", b"\x00\x01\x02" * 50, "shiny"),
        record("http://nested.org/", b"<div>" * 50_000 + b"<p>text"),
        record("http://empty.org/", b""),
        record("http://markup.org/", b"<html><head></head><body></body></html>"),
        record("http://nul.org/", html(english(6)).replace(b" ", b"\0 ", 40)),
        record("http:///path", html(english(7))),
        record("http://[::1", html(english(8))),
        record("https://", html(english(9))),
    ]  # fmt: skip
    found = run(context, write_warc(tmp_path / "a.warc.gz", records))
    assert found == {
        "kept": 7, "page_too_large": 6, "bad_content_coding": 3, "nested_html": 1, "empty": 1,
        "no_text": 1, "bad_url": 3, "in": len(records),
    }  # fmt: skip
    texts = {d.url: d.text for d in read_documents(context.out)}
    assert set(texts) == {
        "http://ok.org/1", "http://ok.org/zh", "http://ok.org/latin", "http://coding.org/br",
        "http://coding.org/zstd", "http://coding.org/plain", "http://nul.org/",
    }  # fmt: skip
    assert "胡同" not in texts["http://ok.org/zh"] and "的" in texts["http://ok.org/zh"]
    assert "的" in texts["http://ok.org/latin"] and "\0" not in texts["http://nul.org/"]
    rows = [json.loads(x) for x in (context.out / "quarantine.jsonl").read_text().splitlines()]
    data = (tmp_path / "a.warc.gz").read_bytes()
    assert all(row["detail"] and data[row["offset"] :][:2] == b"\x1f\x8b" for row in rows)


def test_rows_made_to_hurt(tmp_path: Path, context: Context) -> None:
    rows = [
        json.dumps({"text": english(1) + " \ud800 \udfff end", "url": "http://\udc80.org/"}),
        json.dumps({"text": "\0\0\0", "url": "u"}),
        json.dumps({"text": english(2), "id": "same"}),
        json.dumps({"text": english(3), "id": "same"}),
        json.dumps({"text": "x" * (2 * MIB)}),
        json.dumps({"text": "x" * (20 * MIB)}),
        '{"text": "cut',
        "[1, 2]",
        "[" * 100_000,
        '{"text": 7, "url": null}',
        '{"text": ""}',
    ]
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstd.compress("\n".join(rows).encode("utf-8", "surrogatepass")))
    found = run(context, path)
    assert found == {
        "kept": 3, "page_too_large": 2, "bad_json": 3, "no_text": 2, "empty": 1, "in": len(rows),
    }  # fmt: skip
    assert len({d.id for d in read_documents(context.out)}) == 3


def test_two_records_at_one_place_keep_two_ids(tmp_path: Path, context: Context) -> None:
    path = tmp_path / "a.warc.gz"  # one member holds all: no byte of the file is a record's own
    path.write_bytes(
        gzip.compress(b"".join(record("http://a.org/", html(english(n))) for n in (1, 2, 3)))
    )
    assert run(context, path)["kept"] == 3
    assert len({d.id for d in read_documents(context.out)}) == 3


def test_a_table_with_a_broken_row_group_gives_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"row {n} " + random.Random(n).randbytes(200).hex() for n in range(300)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=100, compression="zstd")
    metadata = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = metadata.data_page_offset + 40
    data[start : start + 400] = b"\xff" * 400
    path.write_bytes(bytes(data))
    (job,) = find_jobs([], [Source(path=str(path))])
    records = list(read_unit(job.unit))
    reasons = [getattr(r, "reason", None) for r in records]
    assert reasons.count("damaged_file") == 1
    assert [r.offset for r in records if getattr(r, "reason", None)] == [100]
    assert reasons.count(None) == 200


def test_a_file_that_goes_away_or_changes_is_a_clear_error(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.corpus import unit

    paths = [
        write_warc(tmp_path / f"{n}.warc.gz", [record(f"http://{n}.org/", html(english(n)))])
        for n in range(3)
    ]
    kept, real = paths[1].read_bytes(), unit.UnitWorker.__call__

    def vanishing(self: unit.UnitWorker, job: unit.Job) -> str:
        if job.number == 1 and not again:
            paths[1].unlink()
        return real(self, job)

    again = False
    monkeypatch.setattr(unit.UnitWorker, "__call__", vanishing)
    with pytest.raises(UserError, match=r"1\.warc\.gz is gone since it was listed.*run the same"):
        run(context, tmp_path)
    again = True
    paths[1].write_bytes(kept)
    assert run(context, tmp_path)["kept"] == 3


def test_a_disk_that_refuses_is_no_fault_of_the_page(tmp_path: Path, context: Context) -> None:
    """What cannot be written ends the run; nothing is quarantined or half kept for it."""
    records = [record(f"http://{n}.org/", html(english(n))) for n in range(30)]
    path = write_warc(tmp_path / "a.warc.gz", records)
    with small_disk(), pytest.raises(OSError):
        run(context, path)
    assert list((context.scratch / "units").iterdir()) == []
    assert run(context, path) == {"kept": 30, "in": 30}
