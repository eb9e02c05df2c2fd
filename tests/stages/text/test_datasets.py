"""Hugging Face datasets: saved folders, folders of files, and a name on a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError
from stages.corpus.source import Source
from stages.corpus.sources import find_jobs, fingerprint_sources
from stages.text.readers import read_unit
from stages.text.records import Page

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def texts(source: Source) -> list[str | None]:
    return [
        found.text
        for job in find_jobs([], [source])
        for found in read_unit(job.unit)
        if isinstance(found, Page)
    ]


def test_a_saved_dataset_is_read_in_its_order(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"body": [f"row {n}" for n in range(10)]})
    folder = tmp_path / "saved"
    datasets.DatasetDict({"train": rows, "test": rows.select([3])}).save_to_disk(
        folder, num_shards={"train": 3, "test": 1}
    )
    source = Source(dataset=str(folder), text_key="body")
    assert texts(source) == [f"row {n}" for n in range(10)]
    assert len(find_jobs([], [source])) == 3
    assert texts(source.model_copy(update={"split": "test"})) == ["row 3"]
    with pytest.raises(UserError, match="no split 'validation'; it has train, test"):
        texts(source.model_copy(update={"split": "validation"}))


def test_a_folder_of_files_follows_its_card(tmp_path: Path) -> None:
    folder = tmp_path / "card"
    (folder / "en").mkdir(parents=True)
    pq.write_table(pa.table({"text": ["one", "two"]}), folder / "en" / "train-0.parquet")
    pq.write_table(pa.table({"text": ["no"]}), folder / "other.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    path: en/*\n---\n"
    )
    source = Source(dataset=str(folder), subset="en")
    assert texts(source) == ["one", "two"]
    assert [job.unit.key for job in find_jobs([], [source])] == ["card/en/train-0.parquet"]
    before = fingerprint_sources([source])
    pq.write_table(pa.table({"text": ["one", "2"]}), folder / "en" / "train-0.parquet")
    assert fingerprint_sources([source]) != before


def _hub(data: bytes) -> type[BaseHTTPRequestHandler]:
    """As much of the hub's API as `datasets` and huggingface_hub ask of it."""
    path = "data/train-00000.parquet"
    entry = {"type": "file", "path": path, "size": len(data), "oid": "1" * 40}
    info = {"_id": "1", "id": "own/set", "sha": COMMIT, "siblings": [{"rfilename": path}]}

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

        def _json(self, value: object) -> None:
            self._bytes(json.dumps(value).encode(), "application/json")

        def _bytes(self, value: bytes, kind: str) -> None:
            wanted = self.headers.get("Range")
            total = len(value)
            if wanted:
                first, last = wanted.removeprefix("bytes=").split("-")
                value = value[int(first) : int(last or total - 1) + 1]
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(value)))
            self.send_header("ETag", '"1"')
            self.send_header("X-Repo-Commit", COMMIT)
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(value)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._json([entry] if path.replace("/", "%2F") in asked or path in asked else [])

        def do_GET(self) -> None:
            where = self.path.split("?")[0]
            if where.endswith(path) and "/resolve/" in where:
                self._bytes(data, "application/octet-stream")
            elif "/api/datasets/own/set/tree/" in where:
                folder = {"type": "directory", "path": "data", "size": 0, "oid": "2" * 40}
                inside = where.rstrip("/").endswith("/data")
                recursive = "recursive=True" in self.path or "recursive=true" in self.path
                self._json([entry] if inside else [folder, entry] if recursive else [folder])
            elif where.startswith("/api/datasets/own/set"):
                self._json(info)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

    return Hub


def test_a_run_is_offline_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="set HF_HUB_OFFLINE=0 and HF_DATASETS_OFFLINE=0"):
        texts(Source(dataset="own/set"))


def test_a_dataset_by_name_comes_from_the_hub(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["from", "the hub"]}), tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _hub(data))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        program = (
            "from tests.stages.text.test_datasets import *\n"
            "source = Source(dataset='own/set')\n"
            "print(json.dumps([texts(source), fingerprint_sources([source])]))"
        )
        environment = {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr[-3000:]
    found, marks = json.loads(done.stdout.splitlines()[-1])
    assert found == ["from", "the hub"]
    assert COMMIT in json.dumps(marks)  # the id follows the commit, not the branch's name
