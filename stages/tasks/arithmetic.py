"""Sums and differences of whole numbers below 100, with the work shown column by column.

The work is in words ("seven and eight make fifteen"), one token a number for a small model, and the
result in digits after "answer", which is what the verifier reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from stages.tasks.chinese import comma, full_width
from stages.tasks.numerals import in_words
from stages.tasks.problem import Problem
from stages.tasks.split import operands_key, split_of
from stages.tasks.template import expand, match
from stages.tasks.words import PEOPLE_NAMES, THINGS

PROMPTS = {
    ("en", "+"): (
        "What is {a} + {b}?",
        "Add {a} and {b}.",
        "Compute {a} + {b}.",
        "{name} has {a} {things} and buys {b} more. How many {things} is that?",
    ),
    ("en", "-"): (
        "What is {a} - {b}?",
        "Compute {a} - {b}.",
        "Take {b} from {a}.",
        "{name} has {a} {things} and gives {b} away. How many {things} are left?",
    ),
    ("zh", "+"): (
        full_width("{a}加{b}等于多少?"),
        "计算{a}+{b}。",
        full_width("{name}有{a}个{things},又买了{b}个。一共有几个?"),
    ),
    ("zh", "-"): (
        full_width("{a}减{b}等于多少?"),
        "计算{a}-{b}。",
        full_width("{name}有{a}个{things},送出{b}个。还剩几个?"),
    ),
}
REQUEST = {"en": " Finish with: answer N.", "zh": "以“答案 N”结尾。"}


@dataclass(frozen=True)
class Exercise:
    """`a` and `b` joined by "+" or "-"; differences are never negative."""

    a: int
    operation: str
    b: int

    @property
    def result(self) -> int:
        return self.a + self.b if self.operation == "+" else self.a - self.b


def columns(exercise: Exercise) -> list[tuple[list[int], int]]:
    """The column steps, ones first: the numbers worked on and what they give.

    A sum's carry is a third number of the tens; a difference borrows ten for the ones.
    """
    (a_tens, a_ones), (b_tens, b_ones) = divmod(exercise.a, 10), divmod(exercise.b, 10)
    one_column = exercise.a < 10 and exercise.b < 10
    if exercise.operation == "+":
        ones = a_ones + b_ones
        tens = [a_tens, b_tens] + ([1] if ones > 9 else [])
        steps = [([a_ones, b_ones], ones), (tens, sum(tens))]
    else:
        borrow = int(a_ones < b_ones)
        top = a_ones + 10 * borrow
        steps = [
            ([top, b_ones], top - b_ones),
            ([a_tens - borrow, b_tens], a_tens - borrow - b_tens),
        ]
    return steps[:1] if one_column else steps


def work(exercise: Exercise, language: str) -> str:
    """The column steps in words, such as "seven and eight make fifteen then four and ..."."""
    words = {
        ("en", "+"): (" and ", " make "),
        ("en", "-"): (" minus ", " is "),
        ("zh", "+"): ("加", "得"),
        ("zh", "-"): ("减", "得"),
    }
    join, gives = words[language, exercise.operation]
    said = [
        join.join(in_words(number, language) for number in numbers)
        + gives
        + in_words(given, language)
        for numbers, given in columns(exercise)
    ]
    return (" then " if language == "en" else comma(language)).join(said)


def final(exercise: Exercise, language: str) -> str:
    """The closing words the verifier reads."""
    return f"{'answer' if language == 'en' else '答案'} {exercise.result}"


def worked(exercise: Exercise, language: str) -> str:
    """The reference response: the work, then the final answer."""
    return work(exercise, language) + comma(language) + final(exercise, language)


def draw_exercise(random: Random, *, split: str, largest: int, smallest: int = 0) -> Exercise:
    """An exercise whose operands (`smallest` to `largest`) are of `split`."""
    while True:
        a, b = random.randint(smallest, largest), random.randint(smallest, largest)
        if split_of((a, b)) == split:
            operation = random.choice("+-")
            return Exercise(max(a, b), "-", min(a, b)) if operation == "-" else Exercise(a, "+", b)


def prompt_for(random: Random, exercise: Exercise, language: str) -> str:
    """One of the ways to ask for the exercise, with the request for the final form."""
    template = random.choice(PROMPTS[language, exercise.operation])
    thing = random.choice(THINGS)
    person = random.choice(PEOPLE_NAMES)
    slots = {"name": person[language], "things": thing["plural" if language == "en" else "zh"]}
    return expand(random, template, a=exercise.a, b=exercise.b, **slots) + REQUEST[language]


def exercise_in(prompt: str) -> tuple[Exercise, str] | None:
    """The exercise and language that `prompt` (as `prompt_for` writes it) asks for, or None."""
    for (language, operation), templates in PROMPTS.items():
        for template in templates:
            slots = match(template + REQUEST[language], prompt)
            if slots and slots["a"].isdigit() and slots["b"].isdigit():
                return Exercise(int(slots["a"]), operation, int(slots["b"])), language
    return None


def draw_problem(random: Random, *, split: str, language: str, largest: int = 99) -> Problem:
    """An arithmetic problem of `split` with numbers up to `largest`."""
    exercise = draw_exercise(random, split=split, largest=largest)
    prompt = prompt_for(random, exercise, language)
    key = operands_key((exercise.a, exercise.b))
    return Problem(
        id="", task="arithmetic", language=language, prompt=prompt,
        solution=worked(exercise, language),
        verifier={"kind": "number", "answer": str(exercise.result)},
        operands=key, split=split,
    )  # fmt: skip
