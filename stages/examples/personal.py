"""Invented personal data with valid check digits: e-mail addresses, phones, identity and "
"card numbers."""

from __future__ import annotations

from random import Random

from stages.tasks.chinese import full_width
from stages.tasks.template import expand
from stages.tasks.words import PEOPLE_NAMES

_LINES = {
    "en": {
        "email": "[Write to {n} at|Send a note for {n} to|Questions go to] {v} [before Friday|for "
        "details|at any time].",
        "phone": "[Call {n} on|Reach {n} at|The number of {n} is] {v} [in the evening|during "
        "the week].",
        "card": "[{n} paid with the card|The invoice of {n} names card] {v} [last week|in person].",
    },
    "zh": {
        "email": "[请写信给{n},|{n}的]邮箱是 {v} 。",
        "phone": "[{n}的电话是|可以打电话给{n},号码是] {v} 。",
        "identity": "{n}的身份证号码是 {v} 。",
    },
}


def luhn_digit(digits: str) -> str:
    """The check digit that makes `digits` plus it pass the Luhn test (ISO/IEC 7812-1)."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def identity_digit(digits: str) -> str:
    """The last character of a Chinese identity number from its first 17 digits (GB 11643-1999)."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))
    return "10X98765432"[total % 11]


def _value(random: Random, kind: str, language: str) -> str:
    if kind == "email":
        name = random.choice(PEOPLE_NAMES)["en"].lower()
        host = random.choice(("post", "mail", "box"))
        return f"{name}.{random.randrange(10, 999)}@{host}-veldon.com"
    if kind == "phone" and language == "zh":
        return f"1{random.choice('3578')}{random.randrange(10**9):09d}"
    if kind == "phone":
        area, line = random.randrange(201, 799), random.randrange(100, 200)
        return random.choice((f"+1 {area}-555-0{line}", f"({area}) 555-0{line}"))
    if kind == "card":
        digits = "4" + f"{random.randrange(10**14):014d}"
        full = digits + luhn_digit(digits)
        return " ".join(full[i : i + 4] for i in range(0, 16, 4))
    birth = (
        f"{random.randrange(1950, 2000)}{random.randrange(1, 13):02d}{random.randrange(1, 29):02d}"
    )
    digits = f"11010{random.randrange(1, 9)}{birth}{random.randrange(1000):03d}"
    return digits + identity_digit(digits)


def personal_lines(random: Random, language: str) -> tuple[list[str], list[str]]:
    """Sentences with personal data, and the data in them."""
    kinds = list(_LINES[language])
    lines, values = [], []
    for kind in random.sample(kinds, random.randint(1, len(kinds))):
        value = _value(random, kind, language)
        template = _LINES[language][kind]
        template = full_width(template) if language == "zh" else template
        name = random.choice(PEOPLE_NAMES)[language]
        lines.append(expand(random, template, n=name, v=value))
        values.append(value)
    return lines, values
