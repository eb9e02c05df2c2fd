"""Commits are whole or not there, and a run goes on from the last that fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.reinforce.steps import Steps


def fill(steps: Steps, first: int, last: int, end: int = 99) -> None:
    for step in range(first, last + 1):
        steps.record(step, {"loss": step / 2}, [{"text": f"答 {step}"}])
        if steps.due(step, end):
            steps.commit(step, lambda folder, step=step: (folder / "state").write_text(str(step)))


def test_goes_on_from_the_last_commit_within_the_limit(tmp_path: Path) -> None:
    steps = Steps(tmp_path, every=3, keep=2)
    assert steps.committed(10) == 0
    fill(steps, 1, 8)
    assert (steps.committed(99), steps.committed(5), steps.committed(2)) == (6, 3, 0)
    assert (steps.folder(6) / "state").read_text() == "6"
    assert [line["loss"] for line in steps.figures(3)] == [0.5, 1.0, 1.5]


def test_old_commits_go_and_the_last_step_always_commits(tmp_path: Path) -> None:
    steps = Steps(tmp_path, every=3, keep=2)
    fill(steps, 1, 10, end=10)
    assert sorted(f.name for f in (tmp_path / "commits").iterdir()) == ["000009", "000010"]


def test_a_commit_without_its_figures_does_not_count(tmp_path: Path) -> None:
    steps = Steps(tmp_path, every=2)
    fill(steps, 1, 4)
    (tmp_path / "steps" / "000003.json").unlink()
    assert steps.committed(99) == 2


def test_a_commit_cut_short_is_never_seen(tmp_path: Path) -> None:
    steps = Steps(tmp_path, every=1)
    fill(steps, 1, 1)

    def die(folder: Path) -> None:
        (folder / "state").write_text("half")
        raise KeyboardInterrupt

    steps.record(2, {"loss": 0.0}, [])
    with pytest.raises(KeyboardInterrupt):
        steps.commit(2, die)
    assert steps.committed(99) == 1
    fill(steps, 2, 2)
    assert steps.committed(99) == 2
    assert not list((tmp_path / "commits").glob(".*"))


def test_publishes_log_board_and_rollouts(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "scratch", every=5)
    fill(steps, 1, 3)
    out = tmp_path / "out"
    out.mkdir()
    steps.publish(out, 3)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    rollouts = [json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()]
    assert [(r["step"], r["text"]) for r in rollouts] == [(1, "答 1"), (3, "答 3")]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    assert board.Tags()["tensors"] == ["train/loss"]
    assert [event.step for event in board.Tensors("train/loss")] == [1, 2, 3]
