"""The sample crawl: genuine WARC files, as the truth says, no evaluation by accident."""

import gzip
import json
import zlib
from collections import Counter
from dataclasses import replace

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from stages.examples import Config
from stages.examples.crawl import write_crawl
from stages.stage import Context
from stages.tasks.generate import draw_problems
from stages.tasks.questions import all_questions
from stages.tasks.split import eval_pairs
from stages.text.dedup import jaccard, shingles
from stages.text.extraction import extract_main_text
from stages.text.quality import QualityFilters

PAGES = 240


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    out = tmp_path_factory.mktemp("crawl")
    leaked = draw_problems(17, split="eval", counts={"arithmetic": 40, "format": 20, "code": 20})
    config = Config(what="crawl", pages=PAGES, files=3, chinese_share=0.3)
    metrics = write_crawl(config, Context(seed=17, out=out, scratch=out), leaked)
    lines = (out / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return out, metrics, [json.loads(line) for line in lines], leaked


@pytest.fixture(scope="module")
def stored(crawl):
    """Address -> (media type and label, body) of every response that is whole."""
    found = {}
    for path in sorted(crawl[0].glob("*.warc.gz")):
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                body = record.reader.read()
                if record.http_headers.get("Content-Encoding") == "gzip" and len(body) > 100:
                    body = gzip.decompress(body)
                found[record.headers["WARC-Target-URI"]] = (record.http_content_type, body)
    return found


def test_digests_hold_and_every_record_is_a_gzip_member(crawl):
    out, *_ = crawl
    path = out / "crawl-00000.warc.gz"
    types = Counter()
    with path.open("rb") as file:
        for record in ArchiveIterator(file, parse_http=False):
            types[record.headers["WARC-Type"]] += 1
            assert record.verify_block_digest(consume=False)
            if record.record_type == WarcRecordType.response:
                record.parse_http()
                assert record.verify_payload_digest()
    assert types["warcinfo"] == 1
    assert types["response"] == PAGES // 3 + 3
    assert types["request"] == PAGES // 3
    members, data = 0, path.read_bytes()
    while data:
        reader = zlib.decompressobj(31)
        assert reader.decompress(data).startswith(b"WARC/1.1\r\n")
        members, data = members + 1, reader.unused_data
    assert members == sum(types.values())


def test_the_last_file_ends_in_the_middle_of_a_record(crawl):
    with pytest.raises(EOFError), gzip.open(crawl[0] / "crawl-00002.warc.gz") as file:
        file.read()


def test_truth_names_every_page_once(crawl, stored):
    _, metrics, truth, _ = crawl
    assert len(truth) == PAGES == metrics["pages"] == len({row["url"] for row in truth})
    assert Counter(row["kind"] for row in truth) == metrics["kinds"]
    assert set(metrics["kinds"]) == {
        "good", "exact_duplicate", "near_duplicate", "spam", "gibberish", "personal_data", "leak",
    }  # fmt: skip
    assert {row["url"] for row in truth} <= set(stored)
    assert {row["kind"] for row in truth if row["keep"]} == {"good", "personal_data"}


def test_pages_decode_in_their_charset_and_hold_their_text(crawl, stored):
    _, _, truth, _ = crawl
    charsets = Counter()
    for row in truth:
        html = stored[row["url"]][1].decode(row["charset"])
        charsets[row["charset"]] += 1
        extracted = "".join(extract_main_text(html).split())
        if row["kind"] not in ("spam", "gibberish"):
            assert extracted.endswith("".join(row["text"].split())), row["url"]
        assert all("".join(value.split()) in extracted for value in row["pii"])
    assert len(charsets) >= 4 and {"utf-8", "windows-1252", "gbk"} <= set(charsets)
    labels = Counter("charset=" in stored[row["url"]][0] for row in truth)
    assert labels[False] > 0


def test_duplicates_are_what_they_say(crawl):
    _, _, truth, _ = crawl
    by_url = {row["url"]: row for row in truth}
    for row in truth:
        if row["kind"] in ("exact_duplicate", "near_duplicate"):
            original = by_url[row["of"]]
            assert original["kind"] == "good" and original["language"] == row["language"]
        if row["kind"] == "near_duplicate" and row["charset"] == original["charset"] == "utf-8":
            share = jaccard(*(shingles(r["text"], row["language"]) for r in (row, original)))
            assert 0.7 < share < 1.0


def test_good_pages_are_unlike_each_other(crawl):
    _, _, truth, _ = crawl
    good = [r for r in truth if r["kind"] == "good" and r["language"] == "en"][:60]
    sets = [shingles(row["text"], "en") for row in good]
    assert max(jaccard(a, b) for i, a in enumerate(sets) for b in sets[:i]) < 0.3


def test_quality_filters_keep_the_good_and_refuse_the_planted(crawl):
    _, _, truth, _ = crawl
    filters = QualityFilters()
    kept: dict[tuple[str, str], list[bool]] = {}
    for row in truth:
        verdict = filters.verdict(row["text"], row["language"])
        kept.setdefault((row["kind"], row["language"]), []).append(verdict.kept)
    for language in ("en", "zh"):
        good = kept["good", language]
        assert sum(good) >= 0.93 * len(good)
    refused = [k for (kind, _), all_kept in kept.items() if kind in ("spam", "gibberish")
               for k in all_kept]  # fmt: skip
    assert len(refused) >= 5 and not any(refused)


def test_evaluation_occurs_in_leaks_only(crawl):
    _, _, truth, leaked = crawl
    prompts = [problem.prompt for problem in leaked]
    asked = [q.prompt for q in all_questions() if q.split == "eval"]
    clean = [row["text"] for row in truth if row["kind"] not in ("leak", "gibberish")]
    assert eval_pairs(clean, loose=True) == set()
    everything = "\n".join(clean)
    assert not [p for p in prompts if p in everything]
    assert not [q for q in asked if q in everything]
    leaks = [row for row in truth if row["kind"] == "leak"]
    by_id = {problem.id: problem for problem in leaked}
    assert leaks and all(row["problems"] for row in leaks)
    assert any(by_id[row["problems"][0]].prompt in row["text"] for row in leaks)


def test_pages_must_leave_room_for_the_planted(tmp_path):
    config = Config(what="crawl", pages=40, files=1)
    context = Context(seed=3, out=tmp_path, scratch=tmp_path)
    metrics = write_crawl(config, replace(context), [])
    assert metrics["kinds"]["good"] >= 25 and "leak" not in metrics["kinds"]
