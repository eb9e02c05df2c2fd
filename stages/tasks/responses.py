"""How varied annotators answer: well formed or terse, with filler, beside the point, or wrong.

Conversations draw their answers from these styles, and preference pairs compare them.
"""

from __future__ import annotations

import re
from random import Random

from stages.tasks import arithmetic, code
from stages.tasks.arithmetic import Exercise
from stages.tasks.chinese import comma
from stages.tasks.problem import Problem
from stages.tasks.questions import Question
from stages.tasks.small_talk import Talk

FILLERS = {
    "en": ("Well, let me think, ", "Hmm, as you may know, ", "To be honest, I guess that "),
    "zh": ("嗯\uff0c让我想想\uff0c", "怎么说呢\uff0c", "老实说\uff0c我猜"),
}
TRAILERS = {
    "en": (" That is all I have to say about it, I think, or maybe there is more.",
           " But who knows, you could look it up somewhere else as well."),
    "zh": ("我想就是这样吧\uff0c也许还有别的。", "不过谁知道呢\uff0c你也可以去别处查查。"),
}  # fmt: skip
FACT_STYLES = ("full", "terse", "filler", "rambling")
TALK_STYLES = ("polite", "terse", "filler")
TASK_STYLES = ("requested", "bare", "beside", "wrong")


def fact_response(random: Random, question: Question, style: str, *, right: bool = True) -> str:
    """An answer to a question about the world in one of FACT_STYLES, right or wrong."""
    value = question.answer if right else random.choice(question.wrong)
    sentence = question.sentence_with(value)
    if style == "full":
        return sentence
    if style == "terse":
        return value
    if style == "filler":
        return random.choice(FILLERS[question.language]) + sentence
    if style == "rambling":
        return sentence + random.choice(TRAILERS[question.language])
    raise ValueError(f"there is no style {style!r} for facts; expected one of {FACT_STYLES}")


def talk_response(random: Random, talk: Talk, style: str) -> str:
    """A reply to small talk in one of TALK_STYLES."""
    if style == "polite":
        return talk.polite
    if style == "terse":
        return talk.terse
    if style == "filler":
        return random.choice(FILLERS[talk.language]) + talk.terse.lower()
    raise ValueError(f"there is no style {style!r} for small talk; expected one of {TALK_STYLES}")


def task_response(random: Random, problem: Problem, style: str) -> str:
    """An answer to a problem in one of TASK_STYLES.

    "requested" is the reference; "bare" gives a right result without the work or the form;
    "beside" talks about the problem; "wrong" has the form and a slip in it.
    """
    if style == "requested":
        return problem.solution
    if style not in TASK_STYLES:
        raise ValueError(f"there is no style {style!r} for tasks; expected one of {TASK_STYLES}")
    make = {"arithmetic": _arithmetic, "format": _format, "code": _code}[problem.task]
    return make(random, problem, style)


def _arithmetic(random: Random, problem: Problem, style: str) -> str:
    parsed = arithmetic.exercise_in(problem.prompt)
    if parsed is None:
        raise ValueError(f"{problem.prompt!r} is not a prompt of arithmetic.prompt_for")
    exercise, language = parsed
    result = exercise.result
    if style == "bare":
        return f"It is {result}." if language == "en" else f"是{result}。"
    if style == "beside":
        return arithmetic.work(exercise, language) + ("." if language == "en" else "。")
    slip = result + random.choice((-10, -1, 1, 10) if result >= 10 else (1, 10))
    return arithmetic.final(Exercise(slip, "+", 0), language)


def _format(random: Random, problem: Problem, style: str) -> str:
    if style == "bare":
        return ("Sure: " if problem.language == "en" else "好的\uff1a") + problem.solution
    words = [
        word.strip("[].!")
        for word in re.split(r"[\s\uff0c,]+", problem.solution)
        if word.strip("[].!")
    ]
    if style == "beside":
        return " ".join(word.lower() for word in words)
    random.shuffle(words)
    return comma(problem.language).join(words[: max(1, len(words) - 1)])


def _code(random: Random, problem: Problem, style: str) -> str:
    parsed = code.parse(problem.prompt)
    if parsed is None:
        raise ValueError(f"{problem.prompt!r} is not a prompt of the code task")
    shape, a, b, _ = parsed
    if style == "bare":
        return shape.expression.format(a=a, b=b)
    if style == "beside":
        return f"def f(x): print({shape.expression.format(a=a, b=b)})"
    return code.source(random.choice([other for other in code.SHAPES if other != shape]), a, b)
