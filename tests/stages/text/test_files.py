"""Files found and opened: on this machine, and over HTTP with ranges from a server on it."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError
from stages.corpus.source import Source
from stages.corpus.sources import find_jobs, fingerprint_sources
from stages.text import files
from stages.text.common_crawl import dump_files
from stages.text.files import find_files
from stages.text.readers import read_unit
from stages.text.records import Page
from tests.stages.corpus.crawl import record, write_warc
from tests.stages.text.servers import RangeServer

DUMP = "CC-MAIN-2024-22"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setattr(files, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(files, "BLOCK_BYTES", 40_000)
    with RangeServer(tmp_path / "served").running() as running:
        yield running


def crawl(path: Path, host: str, pages: int = 40) -> Path:
    noise = [os.urandom(3000).hex().encode() for _ in range(pages)]
    records = [record(f"http://{host}/{n}", b"<p>" + text) for n, text in enumerate(noise)]
    return write_warc(path, records)


def serve_dump(folder: Path, count: int = 3) -> list[str]:
    names = [f"crawl-data/{DUMP}/segments/1/warc/{n:05d}.warc.gz" for n in range(count)]
    for number, name in enumerate(names):
        crawl(folder / name, f"host{number}.org")
    listing = folder / "crawl-data" / DUMP / "warc.paths.gz"
    listing.write_bytes(gzip.compress("".join(f"{n}\n" for n in names).encode()))
    return names


def urls(source: Source) -> list[str]:
    return [
        found.url
        for job in find_jobs([], [source])
        for found in read_unit(job.unit)
        if isinstance(found, Page)
    ]


def test_a_dump_by_name_is_read_in_ranges(server: RangeServer) -> None:
    names = serve_dump(server.folder)
    assert [f.name for f in dump_files(DUMP, base=server.url)] == names
    source = Source(common_crawl=DUMP, base=server.url, files=[0, 3, 2])
    jobs = find_jobs([], [source])
    assert [job.unit.key for job in jobs] == [f"{DUMP}/{names[0]}", f"{DUMP}/{names[2]}"]
    server.ranges.clear()
    assert urls(source) == [f"http://host{h}.org/{n}" for h in (0, 2) for n in range(40)]
    size = (server.folder / names[0]).stat().st_size
    asked = [wanted for path, wanted in server.ranges if path.endswith("00000.warc.gz")]
    assert size > 80_000 and len(asked) == -(-size // 40_000)  # every byte once
    assert fingerprint_sources([source]) == fingerprint_sources([source])
    assert fingerprint_sources([source]) != fingerprint_sources(
        [source.model_copy(update={"files": [1]})]
    )


def test_answers_that_fail_are_asked_again(server: RangeServer) -> None:
    crawl(server.folder / "a.warc.gz", "a.org")
    server.fail_next = 2
    assert len(urls(Source(path=f"{server.url}/a.warc.gz"))) == 40


def test_a_source_that_goes_away_midway_is_a_clear_error(server: RangeServer) -> None:
    crawl(server.folder / "a.warc.gz", "a.org")
    source = Source(path=f"{server.url}/a.warc.gz")
    (job,) = find_jobs([], [source])
    server.gone_after = 2
    with pytest.raises(UserError, match=r"a\.warc\.gz stopped answering at byte 80000 of \d+"):
        list(read_unit(job.unit))
    with pytest.raises(UserError, match=r"a\.warc\.gz is gone since it was listed.*again"):
        list(read_unit(job.unit))
    server.gone_after = None
    crawl(server.folder / "a.warc.gz", "a.org", pages=50)
    with pytest.raises(UserError, match="changed while it was read"):
        list(read_unit(job.unit))


def test_a_server_without_ranges_is_read_through_a_copy(server: RangeServer) -> None:
    crawl(server.folder / "a.warc.gz", "a.org")
    server.has_ranges = False
    assert len(urls(Source(path=f"{server.url}/a.warc.gz"))) == 40


def test_parquet_and_lines_come_over_https_too(server: RangeServer) -> None:
    server.folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": ["c", "d"], "url": ["u", "v"]}), server.folder / "c.parquet")
    (server.folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a", "url": "w"}\n'))
    assert urls(Source(path=f"{server.url}/c.parquet")) == ["u", "v"]
    assert urls(Source(path=f"{server.url}/a.jsonl.gz")) == ["w"]


def test_places_that_are_not_there_are_the_users_errors(server: RangeServer) -> None:
    with pytest.raises(UserError, match=r"missing\.warc\.gz does not exist"):
        find_files(f"{server.url}/missing.warc.gz")
    with pytest.raises(UserError, match=r"cannot be read from .*CC-MAIN-2020-10"):
        dump_files("CC-MAIN-2020-10", base=server.url)
    with pytest.raises(UserError, match="no name of a dump; expected one like"):
        dump_files("2024-22", base=server.url)
    with pytest.raises(UserError, match="cannot be used"):
        find_files("nowhere://bucket/a")
    with pytest.raises(UserError, match=r"cannot be read \(.*check the address"):
        find_files("http://127.0.0.1:9/a.warc.gz")
    with pytest.raises(ValueError, match="give credentials in the environment"):
        Source(path="s3://b/a", options={"secret": "x"})


def test_patterns_name_local_files(tmp_path: Path) -> None:
    for name in ("a/1.jsonl", "a/2.jsonl", "b/3.jsonl", "b/4.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name, "url": name}) + "\n")
    found = [f.name for f in find_files(str(tmp_path / "*" / "*.jsonl"))]
    assert found == ["a/1.jsonl", "a/2.jsonl", "b/3.jsonl"]
    assert urls(Source(path=str(tmp_path / "a" / "*.jsonl"))) == ["a/1.jsonl", "a/2.jsonl"]
