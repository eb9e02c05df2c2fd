"""Conversations and preference pairs, read from an examples artifact and checked line by line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from stages.tune.fine_tuning import FineTuning

Row = dict[str, Any]


def conversations(job: dict[str, Any], config: FineTuning) -> tuple[list[Row], list[Row]]:
    """Conversations of a job: to train on, shuffled by its seed, and held out."""
    return _split(read_conversations, "conversations", job, config)


def preferences(job: dict[str, Any], config: FineTuning) -> tuple[list[Row], list[Row]]:
    """A worker's preference pairs, as `conversations`."""
    return _split(read_preferences, "preferences", job, config)


def read_conversations(path: Path, limit: int | None = None) -> list[Row]:
    """Rows {"messages": [...]}: at least one user turn and an assistant's answer at the end."""
    rows = []
    for number, row in _read(path, limit):
        messages = row.get("messages")
        if messages is None or not _are_messages(messages) or messages[-1]["role"] != "assistant":
            raise UserError(
                f"{path}, line {number}: expected messages with role and content that end with the "
                f"assistant's, found {str(row)[:120]}"
            )
        rows.append({"messages": messages})
    return rows


def read_preferences(path: Path, limit: int | None = None) -> list[Row]:
    """Rows {"prompt": [...], "chosen": [...], "rejected": [...]}, each a list of messages."""
    names = ("prompt", "chosen", "rejected")
    rows = []
    for number, row in _read(path, limit):
        if not all(_are_messages(row.get(name)) for name in names):
            raise UserError(
                f"{path}, line {number}: expected prompt, chosen and rejected, each a list of "
                f"messages with role and content, found {str(row)[:120]}"
            )
        rows.append({name: row[name] for name in names})
    return rows


def _split(
    read: Callable[[Path, int | None], list[Row]],
    name: str,
    job: dict[str, Any],
    config: FineTuning,
) -> tuple[list[Row], list[Row]]:
    folder = Path(job["examples"])
    rows = read(folder / f"{name}.jsonl", config.examples_limit)
    heldout = read(folder / "heldout.jsonl", config.heldout_limit)
    random.Random(job["seed"]).shuffle(rows)
    return rows, heldout


def _read(path: Path, limit: int | None) -> list[tuple[int, Row]]:
    if not path.exists():
        raise UserError(f"{path} does not exist: these examples are not of this stage's kind")
    rows: list[tuple[int, Row]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if limit is not None and len(rows) >= limit:
            break
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}") from error
        rows.append((number, row if isinstance(row, dict) else {}))
    if not rows:
        raise UserError(f"{path} is empty: training needs at least one example")
    return rows


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(m, dict) and isinstance(m.get("content"), str) and "role" in m for m in value
        )
    )
