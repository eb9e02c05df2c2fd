"""Which operands belong to the evaluation: one function, asked by every generator.

Operands are the numbers or words a problem is about, without order. Those of the evaluation never
occur together in a crawl page, a conversation, a preference pair or a training problem.
`operands_in(text)` finds what a text works on, so that the separation is checked and not believed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

Operands = Sequence[int | str]

EVAL_SHARE = 0.2
COLUMN_LIMIT = 20
"""Numbers below this are what the columns of a longer sum are made of, so always trained."""


def operands_key(operands: Operands) -> str:
    """The canonical key of unordered operands, such as "38|47" or "3|river"."""
    return "|".join(sorted(str(operand) for operand in operands))


def split_of(operands: Operands) -> str:
    """ "eval" for a fifth of all operand sets, by the hash of their key; "train" for the others."""
    if all(isinstance(operand, int) and operand < COLUMN_LIMIT for operand in operands):
        return "train"
    digest = hashlib.sha256(operands_key(operands).encode()).digest()
    return "eval" if int.from_bytes(digest[:8], "big") < EVAL_SHARE * 2**64 else "train"


_NUMBER = r"(?<![\d.])(\d{1,2})(?!\.?\d)"
_BETWEEN = (
    r"(?:\s*[-+*×−]\s*|,?\s+(?:plus|and|minus|from|times|to|more than|added to|taken from)\s+"
    r"|\s*(?:加上?|减去?|乘以?|和|与)\s*)"
)
# A pair may also stand apart, as in "has 47 apples and buys 38 more" or "by 3 and adds 27".
# Nearer than a result is to its operands: Chinese says as much in fewer characters.
_SENTENCE_END = r"\d.\u3002?!\uff1f\uff01\n"
_APART = rf"(?:[^{_SENTENCE_END}\u3000-\u9fff]{{1,28}}?|[^{_SENTENCE_END}]{{1,12}}?)"
_ADJACENT_PAIR = re.compile(rf"{_NUMBER}(?={_BETWEEN}{_NUMBER})")
_LOOSE_PAIR = re.compile(rf"{_NUMBER}(?={_APART}{_NUMBER})")


def number_pairs(text: str, *, loose: bool = False) -> set[str]:
    """Keys of the pairs of numbers joined by an operation in `text`.

    `loose` also pairs any two neighbouring numbers of one sentence, some words apart.
    """
    pattern = _LOOSE_PAIR if loose else _ADJACENT_PAIR
    return {
        operands_key((int(match.group(1)), int(match.group(2)))) for match in pattern.finditer(text)
    }


def eval_pairs(texts: Iterable[str], *, loose: bool = False) -> set[str]:
    """The evaluation's number pairs that occur in `texts`: empty where the split is kept."""
    found = set()
    for text in texts:
        for key in number_pairs(text, loose=loose):
            first, second = key.split("|")
            if split_of((int(first), int(second))) == "eval":
                found.add(key)
    return found
