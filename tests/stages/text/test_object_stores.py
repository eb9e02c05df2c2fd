"""Sources and stores in S3 and in Google Cloud Storage, from servers on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.remote import filesystem
from cluster.storage import open_store
from stages.corpus import STAGE, Config
from stages.corpus.source import Source
from stages.corpus.sources import find_jobs, fingerprint_sources
from stages.stage import Context
from stages.text import files
from stages.text.files import find_files, open_file
from tests.cluster.test_artifact import FIELDS, folder_with
from tests.stages.corpus.crawl import sample_crawl
from tests.stages.text.servers import GoogleServer, s3_server
from tests.stages.text.test_files import DUMP, crawl, serve_dump, urls


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    pytest.importorskip("moto.server", reason="needs moto[s3] and flask")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with s3_server("crawls") as endpoint:
            yield endpoint


def test_s3_folders_patterns_and_dumps(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setattr(files, "BLOCK_BYTES", 40_000)
    names = serve_dump(tmp_path)
    options = {"endpoint_url": s3}
    fs = fsspec.filesystem("s3", **options)
    fs.put(str(tmp_path / "crawl-data"), "crawls/cc/", recursive=True)
    dump = Source(common_crawl=DUMP, base="s3://crawls/cc", options=options, files=[1])
    assert urls(dump) == [f"http://host0.org/{n}" for n in range(40)]
    folder = Source(path=f"s3://crawls/cc/crawl-data/{DUMP}/segments", options=options)
    assert [job.unit.key for job in find_jobs([], [folder])] == [
        f"segments/{name.partition('segments/')[2]}" for name in names
    ]
    assert len(urls(folder)) == 120
    pattern = folder.model_copy(update={"path": f"{folder.path}/*/warc/*1.warc.gz"})
    assert urls(pattern) == [f"http://host1.org/{n}" for n in range(40)]
    before = fingerprint_sources([folder])
    assert before == fingerprint_sources([folder]) and all(mark for *_, mark in before[0])
    crawl(tmp_path / "new", "new.org")
    fs.put_file(str(tmp_path / "new"), f"crawls/cc/{names[0]}")
    assert fingerprint_sources([folder]) != before
    with pytest.raises(UserError, match="does not exist"):
        find_files("s3://crawls/nothing", options)


def test_an_s3_object_that_goes_away_midway(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setattr(files, "BLOCK_BYTES", 40_000)
    monkeypatch.setattr(files, "PAUSES_S", (0.01,))
    fs = fsspec.filesystem("s3", endpoint_url=s3)
    fs.put_file(str(crawl(tmp_path / "a.warc.gz", "a.org")), "crawls/a.warc.gz")
    with open_file("s3://crawls/a.warc.gz", {"endpoint_url": s3}) as file:
        assert len(file.read(1000)) == 1000
        fs.rm_file("crawls/a.warc.gz")
        with pytest.raises(UserError, match="stopped answering at byte 40000"):
            file.read(100_000)


def test_a_store_in_s3_and_one_that_cannot_be_written(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    store = open_store("s3://crawls/runs", cache=tmp_path / "cache")
    with store.lease("first"):
        made = store.put(folder_with(tmp_path / "out", a="one"), {**FIELDS, "id": "examples-1"})
        assert store.ids() == [made.id] == ["examples-1"]
    other = open_store("s3://crawls/runs", cache=tmp_path / "other")
    assert other.get("examples-1").file("a").read_text() == "one"
    missing = open_store("s3://no-such-bucket/runs", cache=tmp_path / "cache")
    with pytest.raises(UserError, match=r"no-such-bucket/runs cannot be written.*--set store="):
        missing.lease("second").__enter__()
    (tmp_path / "file").touch()
    folder = open_store(str(tmp_path / "file" / "runs"))
    with pytest.raises(UserError, match=r"cannot be written: Not a directory.*--set store="):
        folder.lease("third").__enter__()


@pytest.fixture
def gs(monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleServer]:
    pytest.importorskip("gcsfs", reason="needs gcsfs")
    pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator")
    monkeypatch.setattr(files, "BLOCK_BYTES", 40_000)
    with GoogleServer("crawls", "private").running() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


def upload(folder: Path, url: str) -> None:
    fs, root = filesystem(url)
    fs.put(f"{folder}/", f"{root}/", recursive=True)


def test_google_folders_patterns_and_dumps(gs: GoogleServer, tmp_path: Path) -> None:
    names = serve_dump(tmp_path)
    upload(tmp_path, "gs://crawls/cc")
    gs.page_size, gs.pages = 2, 0
    dump = Source(common_crawl=DUMP, base="gs://crawls/cc", files=[1])
    assert urls(dump) == [f"http://host0.org/{n}" for n in range(40)]
    folder = Source(path=f"gs://crawls/cc/crawl-data/{DUMP}/segments")
    assert [job.unit.key for job in find_jobs([], [folder])] == [
        f"segments/{name.partition('segments/')[2]}" for name in names
    ]
    assert gs.pages >= 2, "three files come in pages of two"
    assert len(urls(folder)) == 120
    pattern = folder.model_copy(update={"path": f"{folder.path}/*/warc/*1.warc.gz"})
    gs.ranges.clear()
    assert urls(pattern) == [f"http://host1.org/{n}" for n in range(40)]
    size = (tmp_path / names[1]).stat().st_size
    assert size > 80_000 and len(gs.ranges) == -(-size // 40_000), "every byte once"
    before = fingerprint_sources([folder])
    assert before == fingerprint_sources([folder]) and all(mark for *_, mark in before[0])
    crawl(tmp_path / "again" / "00000.warc.gz", "new.org")
    upload(tmp_path / "again", f"{folder.path}/1/warc")
    assert fingerprint_sources([folder]) != before


def test_a_corpus_from_google_is_the_one_from_the_folder(gs: GoogleServer, tmp_path: Path) -> None:
    upload(sample_crawl(tmp_path / "crawl"), "gs://crawls/crawl")
    made = []
    for number, path in enumerate((str(tmp_path / "crawl"), "gs://crawls/crawl")):
        out, scratch = tmp_path / f"{number}/out", tmp_path / f"{number}/scratch"
        out.mkdir(parents=True)
        scratch.mkdir()
        config = Config(sources=[Source(path=path)], workers=0, heldout_fraction=0.2)
        STAGE.run(config, {"crawls": [], "decontaminate": []}, Context(17, out, scratch))
        made.append({p.name: p.read_bytes() for p in sorted(out.iterdir())})
    assert made[0] == made[1] and any(name.endswith(".parquet") for name in made[0])


def test_places_in_google_that_cannot_be_read(gs: GoogleServer, tmp_path: Path) -> None:
    crawl(tmp_path / "up" / "a.warc.gz", "a.org")
    upload(tmp_path / "up", "gs://private/up")
    upload(tmp_path / "up", "gs://crawls/up")
    for place in ("gs://nowhere/up", "gs://crawls/nothing", "gs://crawls/nothing/a.warc.gz"):
        with pytest.raises(UserError, match=f"the source {place} does not exist: check the name"):
            find_files(place)
    with pytest.raises(UserError, match=r"gs://crawls/no/\*\.gz holds nothing to read"):
        find_jobs([], [Source(path="gs://crawls/no/*.gz")])
    for status in (401, 403):
        gs.refused["private"] = status
        for place in ("gs://private/up", "gs://private/up/a.warc.gz", "gs://private/up/*.gz"):
            with pytest.raises(
                UserError, match=r"does not have storage\.objects.*credentials.*anon"
            ):
                find_files(place)
    place = "gs://crawls/up/a.warc.gz"
    with open_file(place) as file:
        assert len(file.read(1000)) == 1000
        gs.refused["crawls"] = 403  # final: it is not asked again
        with pytest.raises(UserError, match=f"{place} stopped answering at byte 40000 .*Forbidden"):
            file.read(100_000)


def test_a_public_bucket_is_read_without_credentials(
    gs: GoogleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crawl(tmp_path / "up" / "a.warc.gz", "a.org")
    upload(tmp_path / "up", "gs://crawls/up")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(UserError, match=r"GOOGLE_APPLICATION_CREDENTIALS is '.*none\.json', which"):
        find_files("gs://crawls/up", {"endpoint_url": gs.url})
    options = {"endpoint_url": gs.url, "anon": True}
    assert len(urls(Source(path="gs://crawls/up", options=options))) == 40
