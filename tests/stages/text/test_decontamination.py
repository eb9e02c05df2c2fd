"""Leaks of evaluation questions are found; texts that only resemble them are not."""

from __future__ import annotations

from collections import Counter

from stages.text.decontamination import Decontaminator, certificate

QUESTIONS = [
    "Tom has 37 apples and buys 48 more at the market. How many apples does Tom have now?",
    "What is 512 plus 268?",
    "小明有37个苹果，又买了48个。小明现在有多少个苹果？",
    "What is 2?",
]
TRAINING = ["Tom has 12 apples and buys 5 more at the market. How many apples does Tom have now?"]


def test_a_leak_is_found_whatever_its_case_and_punctuation() -> None:
    search = Decontaminator(QUESTIONS, TRAINING)
    for question in QUESTIONS[:3]:
        page = (
            f"Some page about things. {question.upper().replace(' ', '  ').replace('?', '')} More."
        )
        hit = search.find(page)
        assert hit is not None and hit.how == "exact" and QUESTIONS[hit.text] == question


def test_a_changed_word_is_a_near_leak() -> None:
    search = Decontaminator(QUESTIONS, TRAINING)
    page = QUESTIONS[0].replace("market", "shop")
    hit = search.find("Intro words first. " + page + " The end of it.")
    assert hit is not None and hit.text == 0


def test_the_same_template_with_other_numbers_is_no_leak() -> None:
    search = Decontaminator(QUESTIONS, TRAINING)
    assert search.find(TRAINING[0]) is None
    assert search.find(QUESTIONS[0].replace("37", "36")) is None
    assert search.find("What is 512 plus 269?") is None
    assert search.find("小明有36个苹果，又买了48个。小明现在有多少个苹果？") is None


def test_short_texts_are_listed_and_not_searched() -> None:
    search = Decontaminator(QUESTIONS)
    assert search.find("He asked: what is 2? Nobody knew.") is None
    paper = certificate(search, QUESTIONS, Counter(exact=3))
    assert paper["texts"] == 4 and paper["not_searched"] == 1
    assert paper["documents_dropped"] == {"exact": 3}


def test_the_certificate_names_the_texts_in_any_order() -> None:
    one = certificate(Decontaminator(QUESTIONS), QUESTIONS, Counter())
    two = certificate(Decontaminator(QUESTIONS[::-1]), QUESTIONS[::-1], Counter())
    assert one["texts_sha256"] == two["texts_sha256"]
