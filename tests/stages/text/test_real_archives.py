"""Every archive of the public test sets: what is read, passed over and quarantined, by count.

The table was made by reading the files; the counts of records are warcio's (INDEX.txt beside them).
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from stages.text.archives import read_archive
from stages.text.records import Damaged, Page

DATA = Path(__file__).parents[4] / "shared" / "data" / "warc"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"needs the archives in {DATA}")

_AUT = "aut/src/test/resources/"
_PYWB = "pywb/sample_archive/"
_UKWA = "ukwa/warc-indexer/src/test/resources/"
_BLACKBOOK = f"{_UKWA}IAH-20080430204825-00000-blackbook-truncated"

# path: (pages, skipped, {reason: quarantined})
TABLE: dict[str, tuple[int, int, dict[str, int]]] = {
    f"{_AUT}arc/badexample.arc.gz": (
        1,
        0,
        {"damaged_archive": 1, "bad_length": 1, "truncated_record": 1},
    ),
    f"{_AUT}warc/example.docs.warc.gz": (0, 9, {}),
    f"{_AUT}warc/example.pdf.warc.gz": (1, 36, {}),
    f"{_AUT}warc/example.txt.warc.gz": (2, 0, {}),
    f"{_AUT}warc/issue-493.warc": (4, 11, {}),
    f"{_AUT}warc/issue-514.warc": (1, 3, {}),
    "dolma/tests/data/warc/sample-0000.warc.gz": (22, 2, {}),
    "jwarc/test-resources/org/netpreserve/jwarc/cc.warc.gz": (1, 0, {}),
    "jwarc/test-resources/org/netpreserve/jwarc/gzip_extra_sl.warc.gz": (0, 0, {}),
    f"{_PYWB}waczs/invalid_example_1.wacz": (0, 0, {"not_an_archive": 1}),
    f"{_PYWB}waczs/valid_example_1.wacz": (1, 0, {}),
    f"{_PYWB}warcs/bad.arc": (0, 0, {"bad_length": 2, "bad_http": 1}),
    f"{_PYWB}warcs/dupes.warc.gz": (1, 11, {}),
    f"{_PYWB}warcs/example-bad.warc.gz.bad": (1, 2, {}),
    f"{_PYWB}warcs/example-extra.warc": (1, 2, {"bad_http": 1}),
    f"{_PYWB}warcs/example-url-agnostic-orig.warc.gz": (1, 0, {}),
    f"{_PYWB}warcs/example-url-agnostic-revisit.warc.gz": (0, 1, {}),
    f"{_PYWB}warcs/example-wget-1-14.warc.gz": (1, 3, {}),
    f"{_PYWB}warcs/example-wpull.warc.gz": (1, 1, {}),
    f"{_PYWB}warcs/example.arc": (1, 0, {}),
    f"{_PYWB}warcs/example.arc.gz": (1, 0, {}),
    f"{_PYWB}warcs/example.warc": (1, 2, {}),
    f"{_PYWB}warcs/example.warc.gz": (1, 2, {}),
    f"{_PYWB}warcs/example2.warc.gz": (1, 0, {}),
    f"{_PYWB}warcs/httpbin-resource.warc.gz": (0, 1, {}),
    f"{_PYWB}warcs/iana.warc.gz": (16, 155, {}),
    f"{_PYWB}warcs/missing-status-text.warc": (0, 1, {}),
    f"{_PYWB}warcs/post-test.warc.gz": (0, 3, {}),
    "resiliparse/tests/data/block-sized-records.warc": (0, 0, {}),
    "resiliparse/tests/data/block-sized-records.warc.gz": (0, 0, {}),
    "resiliparse/tests/data/block-sized-records.warc.lz4": (0, 0, {}),
    "resiliparse/tests/data/warcfile.warc": (16, 0, {}),
    "resiliparse/tests/data/warcfile.warc.gz": (16, 0, {}),
    "resiliparse/tests/data/warcfile.warc.lz4": (16, 0, {}),
    f"{_BLACKBOOK}.arc": (3, 4, {}),
    f"{_BLACKBOOK}.arc.gz": (3, 4, {}),
    f"{_BLACKBOOK}.warc": (3, 5, {}),
    f"{_BLACKBOOK}.warc.gz": (3, 5, {}),
    f"{_UKWA}IAH-urls-wget.warc.gz": (3, 16, {}),
    f"{_UKWA}compression/transfer_compression_brotli.warc": (1, 1, {}),
    f"{_UKWA}compression/transfer_compression_brotli.warc.gz": (1, 1, {}),
    f"{_UKWA}compression/transfer_compression_gzip.warc": (1, 1, {}),
    f"{_UKWA}compression/transfer_compression_gzip.warc.gz": (1, 1, {}),
    f"{_UKWA}compression/transfer_compression_none.warc": (1, 1, {}),
    f"{_UKWA}compression/transfer_compression_none.warc.gz": (1, 1, {}),
    f"{_UKWA}ip-host-testcase.warc.gz": (0, 3, {}),
    f"{_UKWA}truncated_datetime.warc": (1, 1, {}),
    f"{_UKWA}wikipedia-mona-lisa/flashfrozen-jwat-recompressed.warc.gz": (2, 40, {}),
    "warcio/test/data/bad.arc": (0, 0, {"bad_length": 2, "bad_http": 1}),
    "warcio/test/data/example-bad-non-chunked.warc.gz": (1, 1, {}),
    "warcio/test/data/example-bad.warc.gz.bad": (1, 2, {}),
    "warcio/test/data/example-digest.warc": (0, 0, {}),
    "warcio/test/data/example-iana.org-chunked.warc": (1, 0, {}),
    "warcio/test/data/example-resource.warc.gz": (1, 0, {}),
    "warcio/test/data/example-space-in-target-uri.warc.gz": (0, 1, {}),
    "warcio/test/data/example-space-in-url.arc": (0, 0, {"truncated_record": 1}),
    "warcio/test/data/example-trunc.warc": (0, 0, {"bad_length": 1}),
    "warcio/test/data/example-wget-bad-target-uri.warc.gz": (1, 2, {}),
    "warcio/test/data/example-wrong-chunks.warc.gz": (1, 0, {}),
    "warcio/test/data/example.arc": (1, 0, {}),
    "warcio/test/data/example.arc.gz": (1, 0, {}),
    "warcio/test/data/example.warc": (1, 1, {}),
    "warcio/test/data/example.warc.gz": (1, 1, {}),
    "warcio/test/data/post-test.warc.gz": (0, 3, {}),
    "whirlwind/whirlwind.warc": (1, 0, {}),
    "whirlwind/whirlwind.warc.gz": (1, 0, {}),
    "whirlwind/whirlwind.warc.wat": (0, 0, {}),
    "whirlwind/whirlwind.warc.wat.gz": (0, 0, {}),
    "whirlwind/whirlwind.warc.wet": (1, 0, {}),
    "whirlwind/whirlwind.warc.wet.gz": (1, 0, {}),
}

# An ARC's DNS record is no web record here; warcio counts it.
DIFFERENT = {f"{_BLACKBOOK}.arc.gz": 1}


def records_of(name: str) -> list[object]:
    with (DATA / name).open("rb") as file:
        return list(read_archive(file))


@pytest.mark.parametrize("name", TABLE)
def test_every_record_meets_its_fate(name: str) -> None:
    records = records_of(name)
    damaged = [record for record in records if isinstance(record, Damaged)]
    pages = sum(isinstance(record, Page) for record in records)
    found = (pages, len(records) - pages - len(damaged), Counter(d.reason for d in damaged))
    assert found == TABLE[name]
    size = (DATA / name).stat().st_size
    assert all(d.detail and d.offset >= 0 for d in damaged)
    if name.endswith(("arc", ".wacz")):
        assert all(d.offset < size for d in damaged)


def index() -> dict[str, list[str]]:
    lines = (DATA / "INDEX.txt").read_text(encoding="utf-8").splitlines()
    return {name: rest for name, *rest in ([part.strip() for part in x.split("|")] for x in lines)}


def test_the_table_has_every_archive() -> None:
    assert set(TABLE) == set(index())


def test_counts_are_those_of_warcio() -> None:
    kinds = ("response", "resource", "conversion", "revisit")
    compared = 0
    for name, row in index().items():
        if row[0].startswith("(") or row[-1]:
            continue  # warcio does not read it, or gives up in the middle
        counts = ast.literal_eval(row[1])
        pages, skipped, damaged = TABLE[name]
        wanted = sum(counts.get(kind, 0) for kind in kinds) - DIFFERENT.get(name, 0)
        assert pages + skipped + sum(damaged.values()) == wanted, name
        compared += 1
    assert compared >= 45


def test_the_same_records_come_from_plain_gzip_and_lz4() -> None:
    folder = "resiliparse/tests/data/warcfile.warc"
    plain, gzip, lz4 = (
        [(r.url, r.body) for r in records_of(folder + end) if isinstance(r, Page)]
        for end in ("", ".gz", ".lz4")
    )
    assert len(plain) == 16 and plain == gzip == lz4


def test_offsets_lead_back_to_the_record() -> None:
    name = "dolma/tests/data/warc/sample-0000.warc.gz"
    data = (DATA / name).read_bytes()
    for record in records_of(name):
        assert isinstance(getattr(record, "offset", None), int)
        assert data[record.offset :].startswith(b"\x1f\x8b\x08")  # type: ignore[attr-defined]
