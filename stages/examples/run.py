"""Runs the examples stage: hands over to what was asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from cluster.artifact import Artifact
from stages.examples import Config
from stages.examples.conversations import draw_conversations
from stages.examples.crawl import write_crawl
from stages.examples.preferences import draw_preferences
from stages.stage import Context, Inputs, Metrics, StageConfig
from stages.tasks.generate import draw_problems
from stages.tasks.multiple_choice import draw_items
from stages.tasks.problem import Problem, read_problems, write_problems
from stages.tasks.questions import draw_questions

EVAL_QUESTIONS = 200


def run(config: StageConfig, inputs: Inputs, context: Context) -> Metrics:
    """Write what `config.what` names into `context.out`; the metrics are counts and bytes."""
    config = cast(Config, config)
    if config.what == "crawl":
        return write_crawl(config, context, _evaluation(inputs) or _to_leak(config, context.seed))
    if config.what == "problems":
        return _write_problems(config, context)
    against = _evaluation(inputs)
    if config.what == "conversations":
        rows = draw_conversations(config, context.seed, against)
    else:
        rows = draw_preferences(config, context.seed, against)
    held = [row for row in rows if _held_out(row, config.heldout_share)]
    train = [row for row in rows if not _held_out(row, config.heldout_share)]
    _write_jsonl(context.out / f"{config.what}.jsonl", train)
    _write_jsonl(context.out / "heldout.jsonl", held)
    return {"train": len(train), "heldout": len(held), "bytes": _size(context.out)}


def _held_out(row: Mapping[str, Any], share: float) -> bool:
    """Whether a row is held out: by the hash of its prompt, so no prompt is on both sides."""
    prompt = (row.get("prompt") or row["messages"])[0]["content"]
    digest = hashlib.sha256(prompt.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _evaluation(inputs: Inputs) -> list[Problem]:
    artifact = cast("Artifact | None", inputs.get("problems"))
    return read_problems(artifact.file("problems.jsonl"), "eval") if artifact else []


def _to_leak(config: Config, seed: int) -> list[Problem]:
    """The evaluation's problems of a default `problems` of the same seed, all or the first ones."""
    counts = problem_counts(config.eval_problems, config.task_shares)
    return draw_problems(seed, split="eval", counts=counts, largest=config.largest_number)


def problem_counts(total: int, shares: Mapping[Any, float]) -> dict[str, int]:
    """`total` split by `shares`; what rounding leaves goes to the largest."""
    whole = sum(shares.values())
    counts = {str(task): int(total * share / whole) for task, share in shares.items()}
    counts[max(counts, key=lambda task: shares[task])] += total - sum(counts.values())
    return {task: count for task, count in counts.items() if count}


def _write_problems(config: Config, context: Context) -> Metrics:
    """Write problems.jsonl, and what else is asked: questions.jsonl, multiple_choice.jsonl."""
    problems = []
    for split, total in (("train", config.train_problems), ("eval", config.eval_problems)):
        problems += draw_problems(
            context.seed,
            split=split,
            counts=problem_counts(total, config.task_shares),
            chinese_share=config.chinese_share,
            largest=config.largest_number,
        )
    write_problems(context.out / "problems.jsonl", problems)
    questions = draw_questions(context.seed, EVAL_QUESTIONS, split="eval")
    _write_jsonl(
        context.out / "questions.jsonl",
        [
            {"prompt": q.prompt, "answer": q.answer, "sentence": q.sentence, "language": q.language}
            for q in questions
        ],
    )
    items = draw_items(context.seed, EVAL_QUESTIONS)
    _write_jsonl(context.out / "multiple_choice.jsonl", items)
    return {
        "train": config.train_problems,
        "eval": config.eval_problems,
        "questions": len(questions),
        "multiple_choice": len(items),
        "bytes": _size(context.out),
    }


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
