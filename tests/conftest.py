"""What many tests need: artifacts made by hand, and one Ray session for all tests that use Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.artifact import Artifact, Manifest
from stages.stage import Context


@pytest.fixture
def as_artifact() -> Callable[..., Artifact]:
    """Dress a folder up as a published artifact, for handing to a stage's `run`."""

    def dress(
        folder: Path,
        kind: str,
        stage: str = "test",
        parents: dict[str, list[str]] | None = None,
        **metrics: Any,
    ) -> Artifact:
        manifest = Manifest(
            id=f"{kind}-{abs(hash((str(folder), stage))) % 16**12:012x}",
            kind=kind,
            stage=stage,
            stage_version=1,
            code_version="test",
            config={},
            parents=parents or {},
            seed=0,
            trajectory="t",
            metrics=metrics,
            seconds=0.0,
            cost=0.0,
            energy_kwh=0.0,
            created="",
            files=[],
        )
        return Artifact(folder, manifest)

    return dress


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A context with fresh folders and no Ray."""
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    return Context(seed=17, out=out, scratch=scratch)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray session for every test that asks for it; stopped at the end."""
    from cluster import session

    session.connect()
    yield
    session.disconnect()
