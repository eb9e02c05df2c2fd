"""Quality filters: ours against stock datatrove with the same settings, documents per CPU-second.

The documents are the prose of installed packages, cut at paragraphs, and Chinese pages made of
sentences; both sides must give every document the same verdict, or the benchmark fails.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from datatrove.data import Document

from stages.text import quality
from stages.text.prose import read_packages
from stages.text.words import DATATROVE_LANGUAGE
from tests.bench.harness import compare
from tests.stages.text.test_quality import GOOD_CHINESE, GOOD_ENGLISH

Answer = tuple[bool, str, str]


def documents(count: int = 240) -> list[tuple[str, str]]:
    """(language, text): three English ones for each Chinese one."""
    paragraphs = [
        paragraph
        for page in read_packages(["networkx", "pydantic"])
        for paragraph in (page.text or "").split("\n\n")
        if len(paragraph) > 60
    ]
    sentences = [s for line in GOOD_CHINESE.split("\n") for s in line.split("。") if s]
    source, found = random.Random(17), []
    for number in range(count):
        if number % 4 == 3:
            text = "\n".join("。".join(source.sample(sentences, 4)) + "。" for _ in range(5))
            found.append(("zh", text))
        else:
            start = source.randrange(len(paragraphs) - 12)
            found.append(("en", "\n".join([*paragraphs[start : start + 10], GOOD_ENGLISH])))
    return found


def stock() -> Callable[[str, str], Answer]:
    """datatrove's filters as they come, with our settings."""
    filters = {
        language: [
            (name, quality.STOCK[name](language=DATATROVE_LANGUAGE[language], **arguments))
            for name, arguments in quality.settings(language, "web").items()
        ]
        for language in ("en", "zh")
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


def cpu_rate(work: Callable[[], float]) -> float:
    """Amount of work per CPU-second of this process."""
    begin = time.process_time()
    amount = work()
    return amount / (time.process_time() - begin)


def main() -> None:
    """Check that all verdicts agree, then time both sides in turns."""
    pages = documents()
    judge_ours, judge_stock = ours(), stock()
    different = [
        text
        for language, text in pages
        if judge_ours(text, language) != judge_stock(text, language)
    ]
    kept = sum(judge_ours(text, language)[0] for language, text in pages)
    print(f"{len(pages)} documents, {kept} kept, {len(different)} verdicts differ")
    if different:
        raise SystemExit(f"a verdict differs from stock datatrove's for: {different[0][:300]!r}")

    def side(judge: Callable[[str, str], Answer]) -> Callable[[], float]:
        def work() -> float:
            for language, text in pages:
                judge(text, language)
            return float(len(pages))

        return work

    compare(
        "filters", side(judge_ours), side(judge_stock), "documents/CPU-s", rounds=5, rate=cpu_rate
    )


if __name__ == "__main__":
    main()
