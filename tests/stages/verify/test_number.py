"""The final answer's rules, and that hedging never passes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from stages.verify.number import final_number, verify_number


@pytest.mark.parametrize(
    "completion",
    [
        "answer 86",
        "seven and nine make sixteen, four and four make eight, answer 86",
        "The answer is 86.",
        "Answer: +86",
        "答案 86",
        "答案是86。",
        "答案：８６",
        "40 + 46 = 86\n#### 86",
        "so \\boxed{86} it is",
        "answer 86.0",
        "the answer is 40 + 46 = 86",
        "40 + 46 = 86",
        "12 + 7 = 19, 19 + 67 = 86.",
        "86",
        "there were 40 and 46\n86 apples",
        "answer 86, so the answer is 86",
    ],
)
def test_right_answers(completion: str) -> None:
    assert verify_number("86", completion).passed


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "I do not know",
        "answer",
        "answer 85, answer 86",
        "answer 86, answer 85",
        "answer 85 or 86",
        "85 86",
        "80 81 82 83 84 85 86 87",
        "answer 86\nanswer 85",
        "answer 186",
        "answer 860",
        "answer -86",
        "86 is what I thought first\nanswer 85",
        "86 apples\nnow no number",
        "answer 86x",
        "answer 8 6",
        "86.5",
        "answer " + "8" * 5000,
    ],
)
def test_wrong_or_ambiguous_answers(completion: str) -> None:
    assert not verify_number("86", completion).passed


def test_exactness() -> None:
    assert final_number("answer 1,234.50") == Fraction(2469, 2)
    assert verify_number("-3", "answer −3").passed
    assert verify_number("9007199254740993", "answer 9007199254740993").passed
    assert not verify_number("9007199254740993", "answer 9007199254740992").passed


def test_reasons_say_what_was_found() -> None:
    assert verify_number("86", "answer 85").reason == "answered 85"
    assert "more than one" in verify_number("86", "answer 85 86").reason
    assert verify_number("86", " \n ").reason == "empty"
