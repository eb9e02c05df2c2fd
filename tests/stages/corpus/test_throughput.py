"""Estimates follow from the figures of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.artifact import Artifact
from stages.corpus.throughput import estimate, figures_of


def test_a_trillion_tokens_from_a_measured_run(
    tmp_path: Path, as_artifact: Callable[..., Artifact]
) -> None:
    made = as_artifact(
        tmp_path, "corpus",
        bytes_in=10_000_000, documents=2_000, train_bytes=3_900_000, heldout_bytes=100_000,
    ).manifest.model_copy(update={"cpu_seconds": 10.0})  # fmt: skip
    tokens = as_artifact(tmp_path, "tokens", bytes_per_token=4.0).manifest
    figures = figures_of(made, tokens, scaling=0.8)
    assert figures.megabytes_per_core_second == 1.0
    assert figures.document_bytes == 2000
    found = estimate(1e12, 1000, figures)
    assert found.input_bytes == pytest.approx(1e13)  # 4 bytes a token, 40 % of the input kept
    assert found.core_hours == pytest.approx(1e13 / 1e6 / 3600 / 0.8)
    assert found.hours == pytest.approx(found.core_hours / 1000)
    assert found.documents == pytest.approx(2e9)
    assert found.figures.source == made.id
