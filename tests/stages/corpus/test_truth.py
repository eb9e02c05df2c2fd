"""Precision and recall against a hand-made truth."""

from __future__ import annotations

from typing import Any

import pytest

from stages.corpus.truth import measure


def page(url: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "url": url, "kind": kind, "keep": kind in ("good", "personal_data"), "of": None, "pii": [],
        "language": "en", "text": "a b c", **more,
    }  # fmt: skip


def outcome(step: str, masked: int = 0) -> dict[str, Any]:
    return {"step": step, "language": "en", "masked": masked}


def test_scores_count_what_they_say() -> None:
    truth = [
        page("1", "good"), page("2", "good"), page("3", "spam"), page("4", "spam"),
        page("5", "exact_duplicate", of="1"), page("6", "near_duplicate", of="2"),
        page("7", "leak"), page("8", "personal_data", pii=["x@y.org", "8.8.8.8"]),
    ]  # fmt: skip
    outcomes = {
        "1": outcome("dedup"), "2": outcome("kept"), "3": outcome("c4"), "4": outcome("kept"),
        "5": outcome("kept"), "6": outcome("kept"), "7": outcome("decontamination"),
        "8": outcome("kept", masked=2),
    }  # fmt: skip
    texts = {"2": "a b c d", "4": "", "5": "", "6": "", "8": "write to <email> or 8.8.8.8"}
    scores = measure(truth, outcomes, texts)
    assert (scores["quality"]["precision"], scores["quality"]["recall"]) == (1.0, 0.5)
    # One copy of "1" went, though it was the original; the copy of "2" stayed.
    assert (scores["dedup"]["precision"], scores["dedup"]["recall"]) == (1.0, 0.5)
    assert (scores["decontamination"]["precision"], scores["decontamination"]["recall"]) == (1, 1)
    assert scores["personal_data"]["recall"] == 0.5 and scores["personal_data"]["gone"] == 1
    assert scores["extraction"]["precision"] == pytest.approx(3 / 4)
    assert scores["kept"]["recall"] == 1.0
    assert scores["language"]["accuracy"] == 1.0


def test_nothing_planted_gives_no_score() -> None:
    scores = measure([page("1", "good")], {"1": outcome("kept")}, {"1": "a b c"})
    assert scores["dedup"]["recall"] is None and scores["quality"]["precision"] is None
