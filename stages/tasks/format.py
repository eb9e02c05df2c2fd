"""Problems about the form of the answer: a word repeated, words in brackets, how a sentence ends.

A verifier `{"kind": "constraint", "rules": [...]}` holds rules, each a dict with the key "rule",
that are applied to the stripped completion. All must hold; the share that does is the score.

    equals       text                   the completion is this text
    items        items, separator       split at the separator and stripped, it is this list
    contains     text, times            the text occurs at least `times` times (case matters)
    excludes     text                   the text does not occur
    starts_with  text                   it begins so
    ends_with    text                   it ends so
    upper_case                          it has letters and none is lower case
    lower_case                          it has letters and none is upper case
    words        least, most            the number of words split at white space, inclusive
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from stages.tasks.chinese import comma, full_width
from stages.tasks.problem import Problem
from stages.tasks.split import Operands, operands_key, split_of
from stages.tasks.template import match
from stages.tasks.words import NOUNS

Rules = list[dict[str, Any]]

PROMPTS = {
    ("repeat", "en"): "Write the word {a} {n} times, separated by commas.",
    ("brackets", "en"): "Write {a} and {b}, each in square brackets.",
    ("sentence", "en"): "Write a sentence with {a} and {b} that ends with an exclamation mark.",
    ("repeat", "zh"): full_width("把“{a}”写{n}遍,用逗号隔开。"),
    ("brackets", "zh"): "把{a}和{b}分别放进方括号。",
}
KINDS = {
    language: tuple(kind for kind, of in PROMPTS if of == language) for language in ("en", "zh")
}
_WORDS_NEEDED = {"repeat": 1, "brackets": 2, "sentence": 2}


def _repeat(words: list[str], times: int, language: str) -> tuple[str, Rules]:
    items = words * times
    separator = comma(language).strip()
    return comma(language).join(items), [{"rule": "items", "items": items, "separator": separator}]


def _brackets(words: list[str], times: int, language: str) -> tuple[str, Rules]:
    boxed = [f"[{word}]" for word in words]
    rules: Rules = [{"rule": "contains", "text": box, "times": 1} for box in boxed]
    return " ".join(boxed), [*rules, {"rule": "words", "least": 1, "most": 4}]


def _sentence(words: list[str], times: int, language: str) -> tuple[str, Rules]:
    rules: Rules = [{"rule": "contains", "text": word, "times": 1} for word in words]
    return f"The {words[0]} is near the {words[1]}!", [
        *rules,
        {"rule": "ends_with", "text": "!"},
        {"rule": "words", "least": 4, "most": 20},
    ]


_MAKERS: dict[str, Callable[[list[str], int, str], tuple[str, Rules]]] = {
    "repeat": _repeat,
    "brackets": _brackets,
    "sentence": _sentence,
}


def solve(kind: str, words: list[str], times: int, language: str) -> tuple[str, Rules]:
    """A response that obeys, and the rules it is judged by."""
    return _MAKERS[kind](words, times, language)


def draw_operands(random: Random, kind: str, split: str, language: str) -> tuple[list[str], int]:
    """Words (and a number of times for "repeat", else 0) of `split`.

    Operands are named by their English words, so that a translation is of the same split.
    """
    while True:
        nouns = random.sample(NOUNS, _WORDS_NEEDED[kind])
        times = random.randint(2, 4) if kind == "repeat" else 0
        if split_of(_operands([noun["en"] for noun in nouns], times)) == split:
            return [noun[language] for noun in nouns], times


def _operands(english: list[str], times: int) -> Operands:
    return [*english, times] if times else english


_ENGLISH = {noun["zh"]: noun["en"] for noun in NOUNS}


def key_of(words: list[str], times: int) -> str:
    """The operands' key of words in either language."""
    return operands_key(_operands([_ENGLISH.get(word, word) for word in words], times))


def parse(prompt: str) -> tuple[str, list[str], int, str] | None:
    """(kind, words, times, language) that `prompt` was made from, or None."""
    for (kind, language), template in PROMPTS.items():
        slots = match(template, prompt)
        if slots:
            times = int(slots.pop("n", "0"))
            return kind, [slots[name] for name in sorted(slots)], times, language
    return None


def draw_problem(random: Random, *, split: str, language: str) -> Problem:
    """A format problem of `split`."""
    kind = random.choice(KINDS[language])
    words, times = draw_operands(random, kind, split, language)
    solution, rules = solve(kind, words, times, language)
    slots = dict(zip("abc", words, strict=False))
    prompt = PROMPTS[kind, language].format(n=times, **slots)
    return Problem(
        id="", task="format", language=language, prompt=prompt, solution=solution,
        verifier={"kind": "constraint", "rules": rules}, operands=key_of(words, times), split=split,
    )  # fmt: skip
