"""Multiple-choice items over the world's facts, as documents of an evaluation harness."""

from __future__ import annotations

from random import Random
from typing import Any

from stages.tasks.questions import draw_questions

CHOICES = 4


def draw_items(seed: int, count: int, *, chinese_share: float = 0.25) -> list[dict[str, Any]]:
    """`count` items {"question", "choices" (four short answers), "answer" (index), "language",
    "sentences" (each choice said in full)}.

    The questions are phrased as the evaluation alone phrases them.
    """
    random = Random(f"multiple choice {seed}")
    items = []
    for question in draw_questions(seed, count, split="eval", chinese_share=chinese_share):
        wrong = random.sample(question.wrong, min(CHOICES - 1, len(question.wrong)))
        choices = [question.answer, *wrong]
        random.shuffle(choices)
        items.append(
            {
                "question": question.prompt,
                "choices": choices,
                "answer": choices.index(question.answer),
                "language": question.language,
                "sentences": [question.sentence_with(choice) for choice in choices],
            }
        )
    return items
