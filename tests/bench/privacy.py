"""Personal data: precision, recall and F1 of exact spans by kind, beside datatrove's formatter.

On texts that the project generates and, where it is there, on Microsoft's presidio-research set.
datatrove's formatter knows e-mail addresses and IP addresses; its spans are those it would replace.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable

from datatrove.pipeline.formatters import PIIFormatter

from stages.text.privacy import find_spans
from tests.labelled_personal_data import Labelled, Place, generated, looking_alike, presidio
from tests.real_text import SHARED

Find = Callable[[Labelled], Iterable[Place]]
STRUCTURED = frozenset(
    [
        "email",
        "phone",
        "ip",
        "mac",
        "resident_id",
        "social_security",
        "credit_card",
        "iban",
        "secret",
        "url_credentials",
        "crypto_wallet",
    ]
)


def ours(item: Labelled) -> Iterable[Place]:
    """Our spans."""
    return ((s.start, s.stop, s.kind) for s in find_spans(item.text, item.language))


def formatter(item: Labelled) -> Iterable[Place]:
    """The spans that datatrove's formatter replaces."""
    stock = PIIFormatter()
    for kind, replacer in (("email", stock.emails_replacer), ("ip", stock.ip_replacer)):
        for match in replacer.regex.finditer(item.text):
            if replacer.validator is None or replacer.validator(match.group()):
                yield match.start(), match.end(), kind


def scores(items: Iterable[Labelled], find: Find) -> dict[str, tuple[float, float, float, int]]:
    """Kind -> precision, recall, F1, labelled spans."""
    right: Counter[str] = Counter()
    said: Counter[str] = Counter()
    labelled: Counter[str] = Counter()
    for item in items:
        places = set(find(item))
        said.update(kind for _, _, kind in places)
        labelled.update(kind for _, _, kind in item.places)
        right.update(kind for _, _, kind in places & item.places)
    found = {}
    for kind in sorted(set(said) | set(labelled)):
        precision = right[kind] / said[kind] if said[kind] else 0.0
        recall = right[kind] / labelled[kind] if labelled[kind] else 0.0
        mean = 2 * precision * recall / (precision + recall) if right[kind] else 0.0
        found[kind] = (precision, recall, mean, labelled[kind])
    return found


def micro(found: dict[str, tuple[float, float, float, int]], kinds: Iterable[str]) -> float:
    """F1 averaged over these kinds."""
    values = [found[kind][2] for kind in kinds if kind in found and found[kind][3]]
    return sum(values) / len(values) if values else 0.0


def show(name: str, items: list[Labelled]) -> tuple[float, float]:
    """Print a table of both sides; returns the mean F1 of the kinds that the set labels."""
    mine, theirs = scores(items, ours), scores(items, formatter)
    print(f"{name}: {len(items)} texts")
    print(f"{'kind':16} {'spans':>6}  {'precision':>9} {'recall':>7} {'F1':>6}   datatrove's F1")
    for kind, (precision, recall, f1, count) in mine.items():
        other = f"{theirs[kind][2]:.3f}" if kind in theirs else "-"
        print(f"{kind:16} {count:6}  {precision:9.3f} {recall:7.3f} {f1:6.3f}   {other}")
    kinds = [kind for kind, row in mine.items() if row[3]]
    return micro(mine, kinds), micro(theirs, kinds) * len(set(theirs) & set(kinds)) / len(kinds)


def main() -> None:
    """Both sets, then how many look-alikes are taken for personal data."""
    result = show("generated", generated(3000))
    if SHARED.exists():
        show("presidio-research", presidio())
        show("presidio-research, small set, never looked at", presidio("generated_small"))
    texts = looking_alike(5000)
    wrong = sum(bool(find_spans(text)) for text in texts)
    print(f"versions, timestamps, hashes: {wrong} of {len(texts)} texts taken for personal data")
    print(
        json.dumps(
            {
                "bench": "privacy",
                "ours": round(result[0], 4),
                "peer": round(result[1], 4),
                "unit": "mean F1 of exact spans over 13 kinds, generated set",
                "ratio": round(result[0] / max(result[1], 1e-9), 2),
                "false_positives": wrong,
            }
        )
    )


if __name__ == "__main__":
    main()
