"""Small whole numbers in English and Chinese words."""

from __future__ import annotations

ENGLISH = (
    "zero", "one", "two", "three", "four", "five", "six",
    "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_CHINESE_DIGITS = "零一二三四五六七八九"


def in_words(number: int, language: str = "en") -> str:
    """`number` (0 to 19) in words, such as "fifteen" or "十五"; ValueError for others."""
    if not 0 <= number < 20:
        raise ValueError(f"{number} has no single word here; expected 0 to 19")
    if language == "en":
        return ENGLISH[number]
    if number < 10:
        return _CHINESE_DIGITS[number]
    return "十" + (_CHINESE_DIGITS[number - 10] if number > 10 else "")
