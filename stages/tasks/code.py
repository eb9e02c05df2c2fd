"""Small Python functions from a description in words, judged by unit tests; constants are split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from stages.tasks.chinese import full_width
from stages.tasks.problem import Problem
from stages.tasks.split import operands_key, split_of
from stages.tasks.template import match

PROMPT = {
    "en": "Write a Python function f(x) that {what}.",
    "zh": full_width("写一个Python函数f(x),{what}。"),
}


@dataclass(frozen=True)
class Shape:
    """One shape of function of x with constants a (2 to 9) and b (10 to 99)."""

    name: str
    said: dict[str, str]
    expression: str
    value: Callable[[int, int, int], int]
    """x, a, b -> what the function returns."""


SHAPES = (
    Shape("linear", {"en": "multiplies x by {a} and adds {b}", "zh": "把x乘以{a}再加{b}"},
          "x * {a} + {b}", lambda x, a, b: x * a + b),
    Shape("less", {"en": "multiplies x by {a} and subtracts {b}", "zh": "把x乘以{a}再减{b}"},
          "x * {a} - {b}", lambda x, a, b: x * a - b),
    Shape("scaled", {"en": "adds {b} to x and multiplies by {a}", "zh": "把x加{b}再乘以{a}"},
          "(x + {b}) * {a}", lambda x, a, b: (x + b) * a),
    Shape("larger", {"en": "gives the larger of x and {b}, plus {a}",
                     "zh": "取x和{b}中较大的数再加{a}"},
          "max(x, {b}) + {a}", lambda x, a, b: max(x, b) + a),
    Shape("smaller", {"en": "gives the smaller of x and {b}, minus {a}",
                      "zh": "取x和{b}中较小的数再减{a}"},
          "min(x, {b}) - {a}", lambda x, a, b: min(x, b) - a),
)  # fmt: skip


def source(shape: Shape, a: int, b: int) -> str:
    """The function on one line."""
    return f"def f(x): return {shape.expression.format(a=a, b=b)}"


def draw_constants(random: Random, split: str) -> tuple[int, int]:
    """Constants (a, b) of `split`."""
    while True:
        a, b = random.randint(2, 9), random.randint(10, 99)
        if split_of((a, b)) == split:
            return a, b


def parse(prompt: str) -> tuple[Shape, int, int, str] | None:
    """(shape, a, b, language) that `prompt` asks for, or None."""
    for language, frame in PROMPT.items():
        for shape in SHAPES:
            slots = match(frame.replace("{what}", shape.said[language]), prompt)
            if slots and slots["a"].isdigit() and slots["b"].isdigit():
                return shape, int(slots["a"]), int(slots["b"]), language
    return None


def draw_problem(random: Random, *, split: str, language: str) -> Problem:
    """A code problem of `split` with five unit tests, one of them negative, one zero."""
    shape = random.choice(SHAPES)
    a, b = draw_constants(random, split)
    inputs = [0, -random.randint(1, 30), b, *random.sample(range(1, 150), 2)]
    cases = [{"arguments": [x], "expected": shape.value(x, a, b)} for x in inputs]
    return Problem(
        id="", task="code", language=language,
        prompt=PROMPT[language].format(what=shape.said[language].format(a=a, b=b)),
        solution=source(shape, a, b),
        verifier={"kind": "code", "function": "f", "cases": cases},
        operands=operands_key((a, b)), split=split,
    )  # fmt: skip
