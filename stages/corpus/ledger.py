"""The ledger: documents and bytes in = kept + dropped (by step, reason, language) + quarantined.

It is a sum over the units' outcome rows, in exact integers, so nothing can be lost between steps: a
record is one row, and a row has one fate. `bytes` are those of the record's body as it was read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

Counts = dict[str, int]


def _counts() -> Counts:
    return {"documents": 0, "bytes": 0}


class Ledger:
    """Adds up outcomes; `as_json` is what `ledger.json` holds."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], Counts] = defaultdict(_counts)
        self._in = _counts()

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add outcome rows: step, reason, language, bytes."""
        for row in rows:
            for counts in (self._in, self._rows[(row["step"], row["reason"], row["language"])]):
                counts["documents"] += 1
                counts["bytes"] += row["bytes"]

    def add_counts(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add another ledger's `rows`, as `as_json` gives them."""
        for row in rows:
            for counts in (self._in, self._rows[(row["step"], row["reason"], row["language"])]):
                counts["documents"] += row["documents"]
                counts["bytes"] += row["bytes"]

    def total(self, step: str) -> Counts:
        """Documents and bytes whose way ended at this step ("kept" for those that were kept)."""
        total = _counts()
        for (found, _, _), counts in self._rows.items():
            if found == step:
                total = {name: total[name] + counts[name] for name in total}
        return total

    def as_json(self) -> dict[str, Any]:
        dropped: dict[str, dict[str, Counts]] = {}
        languages: dict[str, dict[str, int]] = {}
        quarantined: dict[str, int] = {}
        for (step, reason, language), counts in sorted(self._rows.items()):
            by_language = languages.setdefault(
                language or "unknown", {"in": 0, "kept": 0, "dropped": 0}
            )
            by_language["in"] += counts["documents"]
            by_language["kept" if step == "kept" else "dropped"] += counts["documents"]
            if step == "quarantine":
                quarantined[reason] = quarantined.get(reason, 0) + counts["documents"]
            elif step != "kept":
                entry = dropped.setdefault(step, {}).setdefault(reason, _counts())
                entry["documents"] += counts["documents"]
                entry["bytes"] += counts["bytes"]
        return {
            "in": self._in,
            "kept": self.total("kept"),
            "dropped": dropped,
            "quarantined": quarantined,
            "quarantined_bytes": self.total("quarantine")["bytes"],
            "languages": languages,
            "rows": [
                {"step": s, "reason": r, "language": lang, **counts}
                for (s, r, lang), counts in sorted(self._rows.items())
            ],
        }
