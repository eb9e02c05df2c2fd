"""What a run leaves in its folder, as tests read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from stages.tune.checkpoint import find_checkpoints
from stages.tune.journal import EVENTS, read_journal


def losses(scratch: Path) -> list[float]:
    return [line["loss"] for line in read_journal(scratch)]


def weights(scratch: Path) -> dict[str, torch.Tensor]:
    return find_checkpoints(scratch / "checkpoints")[-1].weights()


def events(scratch: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_journal(scratch, EVENTS) if line["event"] == kind]


def rows_read(scratch: Path) -> dict[int, list[str]]:
    """Hashes of the rows of each step, as they were last read, in the order of the batch."""
    found: dict[int, list[str]] = {}
    by_degree: dict[int, dict[int, dict[int, list[str]]]] = {}
    for note in sorted(scratch.glob("rows-*.jsonl")):
        degree, rank = map(int, note.stem.split("-")[1:])
        for line in map(json.loads, note.read_text().splitlines()):
            by_degree.setdefault(degree, {}).setdefault(line["step"], {})[rank] = line["rows"]
    for degree, steps in by_degree.items():
        for step, ranks in steps.items():
            if len(ranks) == degree:
                read = [row for rank in range(degree) for row in ranks[rank]]
                assert found.setdefault(step, read) == read, f"step {step} read other rows"
    return found
