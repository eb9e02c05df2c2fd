"""What is said of more workers: measured where runs had them, assumed beyond, never mixed up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.artifact import Artifact, Manifest
from cluster.took import total
from stages.planning.scaling import basis_of, readings, scaling_figures

Dress = Callable[..., Artifact]


@pytest.fixture
def corpus(tmp_path: Path, as_artifact: Dress) -> Callable[..., Manifest]:
    """A corpus of so many bytes, read by so many workers in so many seconds."""

    def made(name: str, workers: int, size: float, seconds: float, cpu: float) -> Manifest:
        busy = cpu / (max(1, workers) * seconds)
        units: dict[str, Any] = {"cpu_seconds": cpu, "seconds": seconds}
        units |= {"busy_share": busy, "held_share": min(1.0, busy + 0.05)}
        work = {"workers": workers, "seconds": seconds + 5, "units": units}
        return as_artifact(tmp_path / name, name, bytes_in=size, work=work).manifest

    return made


def test_busy_and_held_are_shares_of_all_workers_seconds(tmp_path: Path) -> None:
    for number, (begun, ended, cpu) in enumerate([(100, 104, 3), (100, 106, 6), (104, 110, 6)]):
        note = tmp_path / f"{number}.json"
        note.write_text(f'{{"cpu_seconds": {cpu}, "begun": {begun}, "ended": {ended}}}')
    took = total(sorted(tmp_path.iterdir()), workers=2, since=99)
    assert took == {
        "units": 3, "cpu_seconds": 15, "seconds": 10, "busy_share": 0.75, "held_share": 0.8,
    }  # fmt: skip
    later = total(sorted(tmp_path.iterdir()), workers=2, since=103)
    assert later["cpu_seconds"] == 15, "the work is all there, whoever did it"
    assert (later["seconds"], later["busy_share"], later["held_share"]) == (6, 0.5, 0.5)
    assert total(sorted(tmp_path.iterdir()), workers=2, since=200)["busy_share"] is None


def figures_of(made: Sequence[Manifest], cores: int = 1000) -> dict[str, Any]:
    return scaling_figures(readings(made), basis_of(made), cores, "corpus")


def test_one_worker_tells_nothing_of_many(corpus: Callable[..., Manifest]) -> None:
    figures = figures_of([corpus("a", 1, 100e6, 80, 76)])
    assert list(figures) == ["measured: scaling, 1 worker", "extrapolated: scaling"]
    assert figures["measured: scaling, 1 worker"].startswith(
        "1.25 MB/s a core (busy 95% of 80.0 s, of 85.0 s in all; a unit in hand 100%; 0.76 CPU-"
    )
    assert figures["extrapolated: scaling"] == (
        "one worker count seen (1): scaling assumed, 1,000 cores as fast as one; a larger sample "
        "made with --set stages.corpus.workers=2 or more measures it"
    )


def test_a_run_with_more_workers_measures_its_own_efficiency(
    corpus: Callable[..., Manifest],
) -> None:
    figures = figures_of([corpus("a", 2, 100e6, 50, 80)])
    assert figures["measured: scaling, 2 workers"].startswith("1 MB/s a core (busy 80% of 50.0 s")
    assert figures["extrapolated: scaling"] == (
        "1,000 cores assumed as fast as each of 2 workers was"
    )


def test_runs_with_several_counts_are_set_beside_each_other(
    corpus: Callable[..., Manifest],
) -> None:
    made = [
        corpus("a", 2, 50e6, 25, 40),
        corpus("b", 0, 200e6, 160, 160),
        corpus("small", 2, 1e6, 9, 1),
        corpus("c", 4, 100e6, 25, 80),
    ]
    found = readings(made)
    assert [(one.workers, one.corpus.kind) for one in found] == [(1, "b"), (2, "a"), (4, "c")]
    figures = figures_of(made, 64)
    assert figures["measured: scaling, 1 to 4 workers"] == (
        "3.2 times as fast (0.80 of a core's speed)"
    )
    assert basis_of(made).corpus.kind == "c", "several workers before the largest"
    assert figures["extrapolated: scaling"] == "64 cores assumed as fast as each of 4 workers was"


def test_a_short_sample_of_several_workers_is_no_basis(corpus: Callable[..., Manifest]) -> None:
    made = [corpus("a", 2, 10e6, 5, 8), corpus("b", 1, 200e6, 160, 160)]
    assert basis_of(made).corpus.kind == "b"
    said = figures_of(made)["extrapolated: scaling"]
    assert said.startswith("more workers only in short samples: scaling assumed")


def test_what_a_manifest_of_before_does_not_say_is_left_out(
    corpus: Callable[..., Manifest],
) -> None:
    older = corpus("a", 2, 100e6, 50, 80)
    del older.metrics["work"]["seconds"], older.metrics["work"]["units"]["held_share"]
    del older.metrics["work"]["units"]["seconds"]
    figures = figures_of([older])
    assert figures["measured: scaling, 2 workers"].startswith("1 MB/s a core (busy 80%; 0.8 CPU")
    older.metrics["work"]["units"]["busy_share"] = None  # all units were made by a run before
    (said,) = figures_of([older]).values()
    assert said.startswith("no run measured how busy its workers were: scaling assumed")
