"""Units of every format, and what becomes of broken rows and files."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError
from stages.text.files import find_files
from stages.text.prose import docstrings, read_packages
from stages.text.readers import read_unit
from stages.text.records import Damaged, Page
from stages.text.units import Unit, make_units


def find_units(path: Path, key: str, **fields: Any) -> list[Unit]:
    return make_units(find_files(str(path)), key, where=str(path), **fields)


def texts(unit: Unit) -> list[str]:
    return [
        r.text if r.text is not None else r.body.decode()
        for r in read_unit(unit)
        if isinstance(r, Page)
    ]


def test_a_folder_gives_units_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"text": "b"}\n')
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\nnot json\n{"x": 1}\n'))
    pq.write_table(pa.table({"text": ["c"], "url": ["u"]}), tmp_path / "c.parquet")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "page.html").write_text("<p>d</p>")
    (tmp_path / "ignored.bin").write_bytes(b"x")
    with tarfile.open(tmp_path / "e.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "sub" / "page.html", "in/page.html")
    units = find_units(tmp_path, "s")
    assert [u.key for u in units] == [
        "s/a.jsonl.gz", "s/b.jsonl", "s/c.parquet", "s/e.tar.xz", "s/pages-00000",
    ]  # fmt: skip
    assert [texts(u) for u in units] == [["a"], ["b"], ["c"], ["<p>d</p>"], ["<p>d</p>"]]
    broken = [r for r in read_unit(units[0]) if isinstance(r, Damaged)]
    assert [(r.reason, r.offset) for r in broken] == [("bad_json", 14), ("no_text", 23)]


def test_truncated_files_end_in_quarantine(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": f"row {n} " * 50}) + "\n" for n in range(500))
    whole = gzip.compress(rows.encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 broken")
    (tmp_path / "c.tar.xz").write_bytes(b"broken")
    for unit in find_units(tmp_path, "s"):
        assert isinstance(list(read_unit(unit))[-1], Damaged)
    assert texts(find_units(tmp_path / "a.jsonl.gz", "s")[0])[0].startswith("row 0")


def test_max_bytes_stops_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * 100}) + "\n" for _ in range(50)))
    assert len(texts(find_units(path, "s", max_bytes=950)[0])) == 10


def test_missing_and_empty_sources_are_the_users_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        find_units(tmp_path / "none", "s")
    with pytest.raises(UserError, match="nothing to read"):
        find_units(tmp_path, "s")
    with pytest.raises(UserError, match="no-such-package"):
        list(read_packages(["no-such-package"]))


def test_docstrings_come_without_importing() -> None:
    text = "Module text that is long enough to be kept: " + "more words, " * 5
    source = f'"""{text}"""\nraise SystemExit\n'
    assert len(docstrings(source)) == 1 and docstrings(source)[0].startswith("Module text")
    assert docstrings('def broken(:\n  """x"""') == []


def test_package_prose_is_the_same_again() -> None:
    first = [(p.url, p.text) for p in read_packages(["pydantic"])]
    assert first == [(p.url, p.text) for p in read_packages(["pydantic"])]
    assert len(first) > 10 and first[0][0].startswith("package:pydantic@")
