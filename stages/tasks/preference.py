"""The true preference: what the readers of this world want from an answer, as a number.

Preference pairs are drawn from it by Bradley-Terry (Bradley and Terry, 1952), so what a reward
model or an aligned model has learned can be judged against the truth on prompts never seen.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from random import Random

from stages.tasks import arithmetic, code, format
from stages.tasks.problem import Problem
from stages.tasks.questions import Question, question_of
from stages.tasks.responses import (
    FACT_STYLES,
    FILLERS,
    TALK_STYLES,
    TASK_STYLES,
    TRAILERS,
    fact_response,
    talk_response,
    task_response,
)
from stages.tasks.small_talk import COURTESIES, Talk, talk_of

_END = (".", "!", "?", "\u3002", "\uff01", "\uff1f", '"')
_FILLER_PHRASES = tuple(
    phrase.strip(" ,\uff0c")
    for spoken in (FILLERS, TRAILERS)
    for phrases in spoken.values()
    for phrase in phrases
)
COMFORTABLE_WORDS = 20
"""Words (or Chinese characters, counted by twos) an answer may have before it is too long."""


def true_preference(prompt: str, response: str) -> float:
    """How good `response` is to `prompt`: about -4 (nonsense) to 4 (right, well formed, brief).

    Readers want the right fact in a complete sentence that names its subject, courtesy in small
    talk, the requested form and result in tasks; no filler, no rambling, no repetition.
    """
    response = response.strip()
    if not response:
        return -4.0
    score = -_length_penalty(response) - _repetition_penalty(response)
    score -= sum(phrase in response for phrase in _FILLER_PHRASES)
    question = question_of(prompt)
    if question is not None:
        return score + _sentence_form(response) + _fact_score(question, response)
    talk = talk_of(prompt)
    if talk is not None:
        return score + _sentence_form(response) + _courtesy_score(talk, response)
    return score + _task_score(prompt, response)


def _units(response: str) -> list[str]:
    """Words; Chinese characters each for themselves."""
    return re.findall(r"[\u4e00-\u9fff]|[^\s\u4e00-\u9fff]+", response)


def _length_penalty(response: str) -> float:
    units = _units(response)
    length = sum(0.5 if "\u4e00" <= unit <= "\u9fff" else 1.0 for unit in units)
    return min(2.0, 0.1 * max(0.0, length - COMFORTABLE_WORDS))


def _repetition_penalty(response: str) -> float:
    units = _units(response)
    grams = [tuple(units[i : i + 4]) for i in range(len(units) - 3)]
    return 2.0 * (1.0 - len(set(grams)) / len(grams)) if grams else 0.0


def _sentence_form(response: str) -> float:
    capital = not response[0].islower()
    return 0.5 * response.endswith(_END) + 0.25 * capital - 0.5 * (len(_units(response)) < 3)


def _fact_score(question: Question, response: str) -> float:
    right = question.answer in response
    wrong = any(value in response for value in question.wrong if value not in question.answer)
    return 1.0 * (question.subject in response) + 1.5 * right - 0.75 * wrong


def _courtesy_score(talk: Talk, response: str) -> float:
    lowered = response.lower()
    return 1.0 * any(word in lowered for word in COURTESIES) + 1.0 * (talk.name in response)


def _task_score(prompt: str, response: str) -> float:
    parsed = arithmetic.exercise_in(prompt)
    if parsed is not None:
        exercise, language = parsed
        numbers = re.findall(r"\d+", response)
        right = bool(numbers) and int(numbers[-1]) == exercise.result
        closed = right and response.endswith(arithmetic.final(exercise, language))
        shown = arithmetic.work(exercise, language) in response
        return 1.0 * right + 0.5 * closed + 0.75 * shown - 0.5 * (not right)
    expected = _reference(prompt)
    if expected is None:
        return _sentence_form(response)
    return 2.0 if response == expected else 0.5 * (expected in response)


def _reference(prompt: str) -> str | None:
    asked = format.parse(prompt)
    if asked is not None:
        kind, words, times, language = asked
        return format.solve(kind, words, times, language)[0]
    wanted = code.parse(prompt)
    if wanted is not None:
        shape, a, b, _ = wanted
        return code.source(shape, a, b)
    return None


@dataclass(frozen=True)
class Pair:
    """A prompt with the preferred and the other response."""

    prompt: str
    chosen: str
    rejected: str


def draw_pair(random: Random, prompt: str, responses: list[str], sharpness: float = 1.5) -> Pair:
    """Two different `responses` compared by a noisy reader (Bradley-Terry).

    P(first preferred) = 1 / (1 + exp(-sharpness * (preference of first - of second))).
    """
    first, second = random.sample(sorted(set(responses)), 2)
    gap = true_preference(prompt, first) - true_preference(prompt, second)
    if random.random() < 1.0 / (1.0 + math.exp(-sharpness * gap)):
        return Pair(prompt, first, second)
    return Pair(prompt, second, first)


def candidates(random: Random, subject: Question | Talk | Problem) -> list[str]:
    """Responses in every style, right and wrong, that a pair may be drawn from."""
    if isinstance(subject, Question):
        return [
            fact_response(random, subject, style, right=right)
            for style in FACT_STYLES
            for right in (True, False)
        ]
    if isinstance(subject, Talk):
        return [talk_response(random, subject, style) for style in TALK_STYLES]
    return [task_response(random, subject, style) for style in TASK_STYLES]
