"""Quality filters: ours against stock datatrove with the same settings, documents per CPU-second.

Each side judges every document once, in turns of a few hundred, so neither meets a text that it has
seen; the figure is all documents over all CPU-seconds. Every verdict, reason and remaining text
must be the same, or the benchmark fails. The documents are real ones in six languages
(../shared/data), or the prose of installed packages where that folder is missing.
`python -m tests.bench.filters 2000 6000` takes 2,000 of them from the 6,000th on; 20,000 from the
first if nothing is said.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable

from datatrove.data import Document

from stages.text import quality
from stages.text.prose import read_packages
from stages.text.words import DATATROVE_LANGUAGE
from tests import real_text

Answer = tuple[bool, str, str]
TURN = 400
COUNT = 20_000


def documents(count: int, start: int = 0) -> list[real_text.Text]:
    """(language, text) of `count` documents from `start` on."""
    if real_text.SHARED.exists():
        return real_text.documents(start + count)[start:]
    pages = (page.text or "" for page in read_packages(["networkx", "pydantic"]))
    return [("en", text) for text in pages if text.strip()][start : start + count]


def stock() -> Callable[[str, str], Answer]:
    """datatrove's filters as they come, with our settings."""
    filters = {
        language: [
            (name, quality.STOCK[name](language=DATATROVE_LANGUAGE[language], **arguments))
            for name, arguments in quality.settings(language, "web").items()
        ]
        for language in DATATROVE_LANGUAGE
    }

    def judge(text: str, language: str) -> Answer:
        document = Document(text=text, id="")
        for name, stock_filter in filters[language]:
            answer = stock_filter.filter(document)
            if answer is not True:
                return False, name, answer[1]
        return True, "", document.text

    return judge


def ours() -> Callable[[str, str], Answer]:
    """Our filters."""
    filters = quality.QualityFilters()

    def judge(text: str, language: str) -> Answer:
        verdict = filters.verdict(text, language)
        if verdict.kept:
            return True, "", verdict.text
        return False, verdict.filter, verdict.reason

    return judge


def judged(
    judge: Callable[[str, str], Answer], pages: list[real_text.Text]
) -> tuple[list[Answer], float]:
    """The answers, and the CPU-seconds they took."""
    begin = time.process_time()
    answers = [judge(text, language) for language, text in pages]
    return answers, time.process_time() - begin


def compare_verdicts(pages: list[real_text.Text]) -> tuple[Counter[str], int, dict[str, float]]:
    """Documents kept by language, verdicts that differ, CPU-seconds of each side."""
    sides = {"ours": ours(), "peer": stock()}
    for judge in sides.values():  # models and vocabularies load once
        for language in {language for language, _ in pages}:
            judge("A word. 一个词。", language)
    seconds = dict.fromkeys(sides, 0.0)
    kept: Counter[str] = Counter()
    different = 0
    for turn, start in enumerate(range(0, len(pages), TURN)):
        part = pages[start : start + TURN]
        order = list(sides) if turn % 2 == 0 else list(reversed(sides))
        answers = {}
        for side in order:
            answers[side], spent = judged(sides[side], part)
            seconds[side] += spent
        kept.update(lang for (lang, _), a in zip(part, answers["ours"], strict=True) if a[0])
        different += sum(a != b for a, b in zip(answers["ours"], answers["peer"], strict=True))
        ratio = seconds["peer"] / seconds["ours"]
        print(
            f"filters: {start + len(part)} documents, ratio so far {ratio:.2f},"
            f" {different} verdicts differ",
            flush=True,
        )
    return kept, different, seconds


def main(count: int = COUNT, start: int = 0) -> None:
    """Judge all documents on both sides and print what came out."""
    pages = documents(count, start)
    kept, different, seconds = compare_verdicts(pages)
    print(f"{len(pages)} documents, kept {dict(kept)}, {different} verdicts differ")
    rates = {side: len(pages) / spent for side, spent in seconds.items()}
    print(
        json.dumps(
            {
                "bench": "filters",
                "ours": round(rates["ours"], 2),
                "peer": round(rates["peer"], 2),
                "unit": "documents/CPU-s",
                "ratio": round(rates["ours"] / rates["peer"], 3),
                "documents": len(pages),
                "mismatches": different,
            }
        )
    )
    if different:
        raise SystemExit(f"{different} verdicts differ from stock datatrove's")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
