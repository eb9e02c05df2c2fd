"""The names given to artifacts: kept, found again, and damage told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.index import find_artifact, read_index, write_index
from cluster.storage import IMPORTS, Store
from tests.cluster.conftest import put


def test_an_index_is_read_as_it_was_written(store: Store) -> None:
    assert read_index(store, "toy") == {}
    write_index(store, "toy", {"base": {"id": "x", "stage": "y"}})
    assert read_index(store, "toy") == {"base": {"id": "x", "stage": "y"}}
    assert store.runs() == ["toy"]


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'{"base": 5}', b'{"base": {}}', b"\xff"])
def test_a_damaged_index_is_said(store: Store, text: bytes) -> None:
    store.write("toy/index.json", text)
    with pytest.raises(UserError, match=r"toy/index\.json is not what a run wrote there; remove"):
        read_index(store, "toy")


def test_names_find_artifacts(store: Store, tmp_path: Path) -> None:
    one, two = put(store, tmp_path, id="examples-a1"), put(store, tmp_path, id="examples-a2")
    write_index(store, "toy", {"base": {"id": one, "stage": "s"}})
    write_index(store, IMPORTS, {"bought": {"id": two, "stage": "import"}})
    for name in (one, "toy/base", "base", "a1"):
        assert find_artifact(store, name) == one
    assert find_artifact(store, "bought") == two
    with pytest.raises(UserError, match="names several"):
        find_artifact(store, "examples")
    for name in ("", "mples", "../x", "x" * 5000, "~"):
        with pytest.raises(UserError, match="there is no artifact"):
            find_artifact(store, name)
    with pytest.raises(UserError, match="no artifact 'nothing'"):
        find_artifact(store, "nothing")
