"""Exact match of a final number.

Which number a completion answers with is decided without knowing the right one:

1. An answer is marked: "answer 86", "the answer is 86", "Answer: 86", "答案 86", "答案是86",
   "#### 86" or `\\boxed{86}` (case does not matter). When there are marks, each must be followed,
   within its line, by exactly one number, and all must give the same number.
2. Without a mark, the last line that is not empty decides, from its last "=" on if it has one; it
   must hold exactly one number.

Where a marked or last line holds an equation, the number after its last "=" counts ("the answer is
40 + 46 = 86"). Everything else ("85 or 86", "answer 85, answer 86", no number at all) is no answer,
and so a wrong one. Numbers are compared exactly, as fractions: 86, 86.0, +86 and 086 are equal; a
comma between groups of three digits is read as such; full-width digits count as digits.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from stages.verify.verdict import Verdict, right, wrong

_MARK = re.compile(r"####|\\boxed|\banswer\b(?:\s+is\b)?|答案(?:是|为)?", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w]|\.\d)")
_LONGEST = 64
"""Digits read of one number; more is not a number anybody asked for, and slow to parse."""


def verify_number(expected: str, completion: str) -> Verdict:
    """Whether `completion` answers with the number `expected` (a decimal literal)."""
    answer = final_number(completion)
    if isinstance(answer, str):
        return wrong(answer)
    if answer == Fraction(expected):
        return right()
    return wrong(f"answered {answer}")


def final_number(completion: str) -> Fraction | str:
    """The one number the completion answers with, or why there is none."""
    text = unicodedata.normalize("NFKC", completion).replace("−", "-")
    marks = list(_MARK.finditer(text))
    if marks:
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        answers = [
            _only_number(text[mark.end() : end].split("\n", 1)[0])
            for mark, end in zip(marks, ends, strict=True)
        ]
    else:
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines:
            return "empty"
        answers = [_only_number(lines[-1])]
    for answer in answers:
        if isinstance(answer, str):
            return answer
    if len(set(answers)) > 1:
        return "more than one final answer"
    return answers[0]


def _only_number(piece: str) -> Fraction | str:
    """The number after the last "=" of a line; a sentence when there is not exactly one."""
    numbers = _NUMBER.findall(piece.rpartition("=")[2])
    if not numbers:
        return "no final answer"
    if len(numbers) > 1:
        return "more than one final answer"
    if len(numbers[0]) > _LONGEST:
        return "the final answer is too long"
    return Fraction(numbers[0].replace(",", ""))
