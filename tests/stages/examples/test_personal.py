"""Invented personal data carries valid check digits, by independent implementations."""

from random import Random

import pytest

from stages.examples.personal import identity_digit, luhn_digit, personal_lines
from stages.text.privacy import chinese_resident_id, luhn


@pytest.mark.parametrize(
    ("digits", "expected"),
    [("7992739871", "3"), ("411111111111111", "1"), ("555555555555444", "4")],
)
def test_luhn_of_published_examples(digits, expected):
    assert luhn_digit(digits) == expected


def test_identity_digit_of_a_published_example():
    assert identity_digit("11010519491231002") == "X"


def test_values_pass_the_masks_own_checks():
    random = Random(1)
    for _ in range(100):
        for language in ("en", "zh"):
            lines, values = personal_lines(random, language)
            assert len(lines) == len(values) >= 1
            for line, value in zip(lines, values, strict=True):
                assert value in line
                digits = value.replace(" ", "")
                if digits.isdigit() and len(digits) == 16:
                    assert luhn(digits)
                if language == "zh" and len(value) == 18 and "@" not in value:
                    assert chinese_resident_id(value)
