"""Small real stages for the pipeline's tests: they write, join, and count resumably."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from cluster.errors import UserError
from stages import registry
from stages.stage import (
    Context,
    Inputs,
    Metrics,
    Stage,
    StageConfig,
    duration,
    execution,
    one,
    parent,
    several,
)


class WriteConfig(StageConfig):
    text: str
    shape: dict[str, int] = Field(default_factory=dict)
    source: str | None = None
    delay_s: float = execution(0.0)
    trace: str | None = execution(None)
    fail: Literal["", "user", "bug", "disk"] = execution("")


class JoinConfig(StageConfig):
    pieces: list[str] = parent("examples", many=True)
    other: str | None = parent("checkpoint", optional=True)
    delay_s: float = execution(0.0)
    trace: str | None = execution(None)


class CountConfig(StageConfig):
    corpus: str = parent("corpus")
    model: str | None = parent("checkpoint", optional=True)
    steps: int = duration(3, ge=1)
    step_s: float = execution(0.0)
    trace: str | None = execution(None)


def _note(trace: str | None, name: str) -> None:
    """Leave a line for every time a stage really ran."""
    if trace:
        with Path(trace).open("a") as stream:
            stream.write(f"{name}\n")


def write(config: WriteConfig, inputs: Inputs, context: Context) -> Metrics:
    _note(config.trace, context.name)
    (context.out / "part.txt").write_text(config.text)
    if config.fail == "user":
        raise UserError("found a bad text, expected a good one")
    if config.fail == "bug":
        raise ZeroDivisionError("nothing to divide by")
    if config.fail == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    time.sleep(config.delay_s)
    (context.out / "deep").mkdir()
    (context.out / "deep" / "text.txt").write_text(config.text * 1000)
    return {"bytes": len(config.text), "seed": context.seed}


def join(config: JoinConfig, inputs: Inputs, context: Context) -> Metrics:
    _note(config.trace, context.name)
    pieces = several(inputs, "pieces")
    time.sleep(config.delay_s)
    texts = [piece.file("part.txt").read_text() for piece in pieces]
    (context.out / "joined.txt").write_text("+".join(texts))
    return {"pieces": len(pieces), "other": inputs["other"] is not None}


def count(config: CountConfig, inputs: Inputs, context: Context) -> Metrics:
    _note(config.trace, context.name)
    state = context.scratch / "state.json"
    start = json.loads(state.read_text())["step"] if state.exists() else 0
    for step in range(start + 1, config.steps + 1):
        time.sleep(config.step_s)
        beside = state.with_suffix(".new")
        beside.write_text(json.dumps({"step": step}))
        os.replace(beside, state)
        context.progress(step, config.steps, f"step {step}")
    text = one(inputs, "corpus").file("joined.txt").read_text()
    (context.out / "count.txt").write_text(f"{text}*{config.steps}")
    return {"steps": config.steps, "resumed_at": start, "loss": float("nan")}


def source_fingerprint(config: WriteConfig) -> object:
    """A source outside the store stands in the id by its content."""
    return Path(config.source).read_text() if config.source else None


WRITE = Stage(
    "write", "examples", 1, WriteConfig, "tests.toy_stages:write", fingerprint=source_fingerprint
)
JOIN = Stage("join", "corpus", 1, JoinConfig, "tests.toy_stages:join")
COUNT = Stage("count", "checkpoint", 1, CountConfig, "tests.toy_stages:count")


def register() -> None:
    """Make the toy stages known to recipes of this process."""
    for stage in (WRITE, JOIN, COUNT):
        registry.STAGES[stage.name] = f"tests.toy_stages:{stage.name.upper()}"


if __name__ == "__main__":
    from stages.cli import main

    register()
    main()
