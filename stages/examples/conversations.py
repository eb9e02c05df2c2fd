"""Conversations for supervised tuning: facts, small talk and tasks, by varied annotators."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from stages.examples import Config
from stages.examples.prompts import Evaluation, PromptSource, Subject
from stages.tasks.problem import Problem
from stages.tasks.questions import Question
from stages.tasks.responses import (
    FACT_STYLES,
    TALK_STYLES,
    TASK_STYLES,
    fact_response,
    talk_response,
    task_response,
)
from stages.tasks.small_talk import Talk

Conversation = dict[str, Any]


def draw_conversations(config: Config, seed: int, against: Sequence[Problem]) -> list[Conversation]:
    """`config.count` conversations of one turn, none of which repeats the evaluation.

    Questions and small talk are answered in all styles evenly; tasks as requested with
    `requested_share`, otherwise in the other styles evenly.
    """
    random = Random(f"conversations {seed}")
    source = PromptSource(config, random, Evaluation(against))
    rows: list[Conversation] = []
    seen: set[tuple[str, str]] = set()
    for _ in range(config.count * 20):
        if len(rows) == config.count:
            break
        subject = source.draw()
        answer = respond(random, subject, config.requested_share)
        if (subject.prompt, answer) in seen:
            continue
        seen.add((subject.prompt, answer))
        messages = [
            {"role": "user", "content": subject.prompt},
            {"role": "assistant", "content": answer},
        ]
        rows.append({"messages": messages, "task": source.task_of(subject)})
    return rows


def respond(random: Random, subject: Subject, requested_share: float) -> str:
    """One annotator's answer."""
    if isinstance(subject, Question):
        return fact_response(random, subject, random.choice(FACT_STYLES))
    if isinstance(subject, Talk):
        return talk_response(random, subject, random.choice(TALK_STYLES))
    requested = random.random() < requested_share
    style = TASK_STYLES[0] if requested else random.choice(TASK_STYLES[1:])
    return task_response(random, subject, style)
