"""Preference pairs: two styles of answer to one prompt, compared by the world's true preference."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from stages.examples import Config
from stages.examples.prompts import Evaluation, PromptSource
from stages.tasks.preference import candidates, draw_pair
from stages.tasks.problem import Problem


def draw_preferences(
    config: Config, seed: int, against: Sequence[Problem]
) -> list[dict[str, list[dict[str, str]]]]:
    """`config.count` different pairs {"prompt", "chosen", "rejected"}, each a list of messages."""
    random = Random(f"preferences {seed}")
    source = PromptSource(config, random, Evaluation(against))
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, ...]] = set()
    for _ in range(config.count * 20):
        if len(rows) == config.count:
            break
        subject = source.draw()
        responses = candidates(random, subject)
        if len(set(responses)) < 2:
            continue
        pair = draw_pair(random, subject.prompt, responses, config.sharpness)
        key = (pair.prompt, *sorted((pair.chosen, pair.rejected)))
        if key in seen:
            continue
        seen.add(key)
        rows.append(
            {
                "prompt": [{"role": "user", "content": pair.prompt}],
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
        )
    return rows
