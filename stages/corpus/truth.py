"""Precision and recall of the corpus's steps against the planted truth of a generated crawl.

`truth.jsonl` says of each page what it is; the outcomes say what became of it. A duplicate counts
as found when its group (an original and its copies) has one survivor, whichever that is.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_WORD = re.compile(r"[\u3400-\u9fff]|\w+")
DUPLICATES = ("exact_duplicate", "near_duplicate")
_FILTERS = ("gopher_repetition", "gopher_quality", "c4", "fineweb", "language", "extraction")
_STEPS = {
    "quality": (("spam", "gibberish"), _FILTERS),
    "decontamination": (("leak",), ("decontamination",)),
}


def read_truth(crawl: Path) -> list[dict[str, Any]]:
    """The planted pages of a crawl; [] where it has no truth.jsonl."""
    path = crawl / "truth.jsonl"
    if not path.exists():
        return []
    return [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]


def _score(found: int, flagged: int, planted: int) -> dict[str, Any]:
    return {
        "precision": found / flagged if flagged else None,
        "recall": found / planted if planted else None,
        "found": found,
        "flagged": flagged,
        "planted": planted,
    }


def measure(
    truth: Sequence[dict[str, Any]],
    outcomes: Mapping[str, dict[str, Any]],
    texts: Mapping[str, str],
) -> dict[str, Any]:
    """Scores per step. `outcomes` and `texts` (of kept pages) are by URL; `truth` lists planted
    pages.
    """
    pages = [page for page in truth if page["url"] in outcomes]
    step_of = {page["url"]: outcomes[page["url"]]["step"] for page in pages}
    scores: dict[str, Any] = {"pages": len(truth), "read": len(pages)}
    for name, (kinds, steps) in _STEPS.items():
        planted = {p["url"] for p in pages if p["kind"] in kinds}
        flagged = {url for url, step in step_of.items() if step in steps}
        scores[name] = _score(len(planted & flagged), len(flagged), len(planted))
    scores["dedup"] = _duplicates(pages, step_of)
    scores["kept"] = _kept(pages, step_of)
    scores["personal_data"] = _personal_data(pages, outcomes, texts)
    scores["language"] = _language(pages, outcomes)
    scores["extraction"] = _extraction(pages, texts)
    scores["dropped_by_kind"] = {
        kind: dict(sorted(Counter(step_of[p["url"]] for p in pages if p["kind"] == kind).items()))
        for kind in sorted({p["kind"] for p in pages})
    }
    return scores


def _duplicates(pages: Sequence[dict[str, Any]], step_of: Mapping[str, str]) -> dict[str, Any]:
    """Of each group, all that reached dedup but one should be dropped by it."""
    groups: dict[str, list[str]] = defaultdict(list)
    for page in pages:
        groups[page["of"] if page["kind"] in DUPLICATES and page.get("of") else page["url"]].append(
            page["url"]
        )
    found = flagged = planted = 0
    for group in groups.values():
        reached = [url for url in group if step_of[url] in ("kept", "dedup")]
        dropped = sum(step_of[url] == "dedup" for url in reached)
        extra = max(0, len(reached) - 1)
        planted, flagged, found = planted + extra, flagged + dropped, found + min(dropped, extra)
    return _score(found, flagged, planted)


def _kept(pages: Sequence[dict[str, Any]], step_of: Mapping[str, str]) -> dict[str, Any]:
    """Good pages that were kept; of a group of duplicates any one counts for its original."""
    survivors = Counter(
        page["of"] if page["kind"] in DUPLICATES else page["url"]
        for page in pages
        if step_of[page["url"]] == "kept"
    )
    wanted = {page["url"] for page in pages if page["keep"] and page["kind"] not in DUPLICATES}
    return _score(len(wanted & set(survivors)), survivors.total(), len(wanted))


def _personal_data(
    pages: Sequence[dict[str, Any]],
    outcomes: Mapping[str, dict[str, Any]],
    texts: Mapping[str, str],
) -> dict[str, Any]:
    """Planted strings that are gone from kept pages, and masked spans that had been planted."""
    planted = found = masked = 0
    for page in pages:
        url = page["url"]
        if url in texts:
            strings = page.get("pii") or []
            gone = sum(string not in texts[url] for string in strings)
            planted, found, masked = (
                planted + len(strings),
                found + gone,
                masked + outcomes[url]["masked"],
            )
    return _score(min(found, masked), masked, planted) | {"gone": found}


def _language(
    pages: Sequence[dict[str, Any]], outcomes: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Share of pages that language identification reached and named rightly."""
    told = [
        (p["language"], outcomes[p["url"]]["language"])
        for p in pages
        if outcomes[p["url"]]["language"]
    ]
    right = sum(a == b for a, b in told)
    return {"accuracy": right / len(told) if told else None, "pages": len(told)}


def _extraction(pages: Sequence[dict[str, Any]], texts: Mapping[str, str]) -> dict[str, Any]:
    """Words of kept good pages against the planted main text, as multisets."""
    common = extracted = planted = 0
    for page in pages:
        if page["kind"] == "good" and page["url"] in texts and page.get("text"):
            a, b = Counter(_WORD.findall(texts[page["url"]])), Counter(_WORD.findall(page["text"]))
            common, extracted, planted = (
                common + (a & b).total(),
                extracted + a.total(),
                planted + b.total(),
            )
    return _score(common, extracted, planted)
