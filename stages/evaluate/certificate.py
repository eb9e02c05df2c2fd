"""Checks the corpus's decontamination certificate against the problems that are about to be asked.

A certificate that searched for other texts certifies nothing here, so its digest is compared; and
the corpus is read once more, independently of the filter, for questions that stand in it verbatim.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stages.tasks.problem import Problem
from stages.text.decontamination import MIN_TOKENS, tokens
from stages.text.documents import read_documents

CERTIFICATE = "decontamination.json"
_KEY = 4


def check_certificate(corpus: Path, problems: Sequence[Problem]) -> dict[str, Any]:
    """What the certificate says, whether it is about these problems, and what is left all the same.

    {"certified": bool, "removed": documents the corpus stage dropped, "searched": texts,
    "remaining": documents that still hold a question verbatim}.
    """
    asked = [problem.prompt for problem in problems if problem.split == "eval"]
    path = corpus / CERTIFICATE
    stated = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    digest = hashlib.sha256("\0".join(sorted(asked)).encode()).hexdigest()
    return {
        "certified": stated.get("texts_sha256") == digest,
        "removed": sum(stated.get("documents_dropped", {}).values()),
        "searched": len(asked),
        "remaining": contaminated((d.text for d in read_documents(corpus)), asked),
    }


def contaminated(documents: Iterable[str], questions: Sequence[str]) -> int:
    """How many documents hold a question word for word (case, space, punctuation apart)."""
    by_key: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    for question in questions:
        words = tokens(question)
        if len(words) >= MIN_TOKENS:
            by_key[tuple(words[:_KEY])].append(words)
    return sum(_holds(tokens(document), by_key) for document in documents)


def _holds(words: Sequence[str], by_key: dict[tuple[str, ...], list[list[str]]]) -> bool:
    for at, key in enumerate(zip(*(words[i:] for i in range(_KEY)), strict=False)):
        for question in by_key.get(key, ()):
            if list(words[at : at + len(question)]) == question:
                return True
    return False
