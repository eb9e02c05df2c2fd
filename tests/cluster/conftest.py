"""A store of each kind."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Store, open_store
from tests.cluster.test_artifact import FIELDS, folder_with


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    return open_store(f"memory://{uuid.uuid4().hex}/runs", cache=tmp_path / "cache")


def put(store: Store, tmp_path: Path, **fields: Any) -> str:
    out = folder_with(tmp_path / uuid.uuid4().hex, a="one", b="two")
    return store.put(out, {**FIELDS, **fields}).id
