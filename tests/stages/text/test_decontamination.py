"""Leaks of evaluation questions are found; texts that only resemble them are not."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from random import Random

import pytest

from stages.text.decontamination import Decontaminator, certificate
from tests.real_text import SHARED, Text, documents, few_documents, needs_shared

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


def test_width_and_signs_in_numbers_do_not_hide_a_leak() -> None:
    question = "Weng earns $1,200.50 an hour and works 3 hours. How much does she earn in all?"
    search = Decontaminator([question])
    for written in ("1200.50", "1 200.50", "\uff11\uff0c\uff12\uff10\uff10.50"):
        hit = search.find(f"Before. {question.replace('1,200.50', written)} After.")
        assert hit is not None and hit.how == "exact"


def test_thirteen_characters_are_no_thirteen_words() -> None:
    asked = (
        "下列哪一项不属于计算机的输入设备？键盘 鼠标 打印机 扫描仪 手写板 摄像头 触摸屏 话筒 光笔"
    )
    other = "下列哪一项不属于计算机的输出设备？显示器 音箱 绘图仪"
    search = Decontaminator([asked])
    assert search.find(asked) is not None and search.find(asked[8:]) is not None
    assert search.find(other) is None


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


def test_short_texts_are_only_found_whole() -> None:
    """To put the bottle into brackets is not to put the cup into brackets."""
    search = Decontaminator(["把瓶子和信分别放进方括号。"])
    assert search.find("他说把瓶子和信分别放进方括号。") is not None
    assert search.find("他说把杯子和信分别放进方括号。") is None


def test_what_most_evaluation_texts_share_is_template() -> None:
    texts = [f"Read the text and answer the question about {name} quickly now" for name in NAMES]
    search = Decontaminator(texts)
    assert search.find("Read the text and answer the question about nobody at all now") is None
    hit = search.find("Read the text and answer the question about " + NAMES[3] + " quickly now")
    assert hit is not None and hit.text == 3


NAMES = [
    f"{a}{b}"
    for a in ("Ana", "Bo", "Cy", "Di", "Eve", "Flo")
    for b in ("ril", "tas", "mun", "dor", "vik")
]


def _edited(random: Random, text: str) -> str:
    """The text with one word in about fifteen changed or gone; no number is touched."""
    words = text.split(" ")
    for _ in range(max(1, len(words) // 15)):
        plain = [at for at, word in enumerate(words) if word.isalpha()]
        at = random.choice(plain)
        words[at : at + 1] = random.choice(([], ["another"]))
    return " ".join(words)


def _measure(leaks: int, texts: list[Text]) -> dict[str, float]:
    """Recall of planted leaks of GSM8K, and the share of clean documents that are dropped."""
    rows = [
        json.loads(line)["question"]
        for line in lzma.decompress((SHARED / "gsm8k/train.jsonl.xz").read_bytes()).splitlines()
    ]
    training, evaluation = rows[:3000], rows[-1000:]
    pages = [text for _, text in texts]
    random = Random(11)
    search = Decontaminator(evaluation, training)
    found = {"exact": 0, "near": 0}
    for number in range(leaks):
        question = evaluation[number % len(evaluation)]
        page = pages[number % len(pages)][:4000].split(" ")
        at = random.randrange(len(page) + 1)
        for how, said in (("exact", question.upper()), ("near", _edited(random, question))):
            leaked = " ".join([*page[:at], said, *page[at:]])
            found[how] += search.find(leaked) is not None
    false = sum(search.find(page) is not None for page in pages)
    return {how: count / leaks for how, count in found.items()} | {"false": false / len(pages)}


@needs_shared
def test_planted_leaks_are_found_and_clean_pages_kept() -> None:
    measured = _measure(150, few_documents(1000))
    print(measured)
    assert measured["exact"] >= 0.99
    assert measured["near"] >= 0.9
    assert measured["false"] == 0


@pytest.mark.parity
@needs_shared
def test_planted_leaks_over_twenty_thousand_pages() -> None:
    measured = _measure(1000, documents(20_000))
    print(measured)
    assert measured["exact"] >= 0.99
    assert measured["near"] >= 0.9
    assert measured["false"] < 1e-4
