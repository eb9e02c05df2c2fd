"""The journal: each step once, whatever was killed."""

from __future__ import annotations

from pathlib import Path

from stages.tune.journal import LOG, TENSORBOARD, Journal, read_journal


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for step in range(5):
            journal.write(step, loss=float(step))
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 5, "lo')  # a kill in the middle of a line
    with Journal(tmp_path, first_step=3) as journal:
        journal.write(3, loss=30.0)
    assert [(line["step"], line["loss"]) for line in read_journal(tmp_path)] == [
        (0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)
    ]  # fmt: skip
    assert list((tmp_path / TENSORBOARD).iterdir())


def test_only_the_active_rank_writes(tmp_path: Path) -> None:
    with Journal(tmp_path / "other", active=False) as journal:
        journal.write(0, loss=1.0)
    assert not (tmp_path / "other").exists()
