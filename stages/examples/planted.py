"""What a corpus must find in a crawl: duplicates, spam, gibberish, personal data, leaked "
"problems."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from stages.examples.pages.page import Page, into_paragraphs
from stages.examples.pages.stories import story_sentences
from stages.examples.personal import personal_lines
from stages.tasks.problem import Problem
from stages.tasks.words import NOUNS

SHARES = {
    "exact_duplicate": 0.035,
    "near_duplicate": 0.04,
    "spam": 0.025,
    "gibberish": 0.015,
    "personal_data": 0.025,
    "leak": 0.015,
}
"""Shares of a crawl's pages."""


def near_duplicate(random: Random, page: Page) -> Page:
    """The page with a few words changed and a sentence added; no digit is touched."""
    paragraphs = list(page.paragraphs)
    for _ in range(random.randint(2, 6)):
        at = random.randrange(len(paragraphs))
        paragraphs[at] = _change_word(random, paragraphs[at], page.language)
    closing = {"en": "This page was last changed on a {w} day.", "zh": "本页最近有过{w}更新。"}
    word = random.choice(("quiet", "windy", "long")) if page.language == "en" else "小小的"
    paragraphs.append(closing[page.language].format(w=word))
    return replace(page, paragraphs=paragraphs)


def _change_word(random: Random, text: str, language: str) -> str:
    if language == "zh":
        old, new = random.choice(
            (("他们", "大家"), ("不久", "很快"), ("后来", "然后"), ("在", "就在"))
        )
        return text.replace(old, new, 1)
    words = text.split(" ")
    plain = [i for i, word in enumerate(words) if re.fullmatch(r"[a-z]{4,}", word)]
    if plain:
        words[random.choice(plain)] = random.choice(NOUNS)["en"]
    return " ".join(words)


def spam(random: Random, language: str) -> Page:
    """A page stuffed with a few key words, or a farm of links."""
    words = [noun[language] for noun in random.sample(NOUNS, 3)]
    if random.random() < 0.5:
        if language == "en":
            phrase = f"cheap {words[0]} buy {words[0]} online best {words[1]} price"
            lines = [
                " ".join([phrase] * random.randint(6, 12)) for _ in range(random.randint(3, 6))
            ]
        else:
            phrase = f"便宜{words[0]} 买{words[0]} 最好的{words[1]}价格 "
            lines = [phrase * random.randint(6, 12) for _ in range(random.randint(3, 6))]
    else:
        offer = {"en": "{a} and {b} links", "zh": "{a}{b}链接"}[language]
        lines = [
            offer.format(a=random.choice(words), b=random.choice(NOUNS)[language])
            for _ in range(random.randint(30, 60))
        ]
    return Page(words[0], lines, language, "spam")


def gibberish(random: Random, language: str) -> Page:
    """A page of random letters, or random Chinese characters."""
    lines = []
    for _ in range(random.randint(4, 8)):
        if language == "en":
            words = [
                "".join(
                    random.choices("bcdfghjklmnpqrstvwxzaeiou0123456789#", k=random.randint(2, 14))
                )
                for _ in range(random.randint(15, 40))
            ]
            lines.append(" ".join(words))
        else:
            lines.append(
                "".join(
                    chr(random.randrange(0x4E00, 0x9F00)) for _ in range(random.randint(40, 90))
                )
            )
    return Page("x" + str(random.randrange(10**6)), lines, language, "gibberish")


def with_personal_data(random: Random, page: Page) -> Page:
    """The page with sentences that hold personal data."""
    lines, values = personal_lines(random, page.language)
    at = random.randrange(1, len(page.paragraphs) + 1)
    joined = (" " if page.language == "en" else "").join(lines)
    paragraphs = [*page.paragraphs[:at], joined, *page.paragraphs[at:]]
    return replace(page, paragraphs=paragraphs, pii=values)


def leak(random: Random, problems: Sequence[Problem], language: str, *, edited: bool) -> Page:
    """A story with evaluation problems and their solutions among it, word for word or edited."""
    title, story = story_sentences(random, language, random.randint(8, 12))
    sentences = list(story)
    for problem in problems:
        prompt, solution = problem.prompt, problem.solution
        if edited:
            prompt = _edit(random, prompt)
        stop = "" if solution.endswith(("!", ".")) else ("." if language == "en" else "。")
        sentences.insert(
            random.randrange(1, len(sentences)),
            f"{prompt} {solution}{stop}" if language == "en" else f"{prompt}{solution}{stop}",
        )
    paragraphs = into_paragraphs(random, sentences, language)
    return Page(title, paragraphs, language, "leak", problems=[problem.id for problem in problems])


def _edit(random: Random, prompt: str) -> str:
    """Another case, spacing or punctuation, the same question."""
    way = random.randrange(3)
    if way == 0:
        return prompt.upper()
    if way == 1:
        return re.sub(r"([+\-])", r" \1 ", prompt).replace(".", " :").replace("?", " ?")
    return prompt.lower().replace(",", " ,")
