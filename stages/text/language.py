"""Which language a text is in, offline: the script decides where it can, py3langid elsewhere.

Chinese, Japanese and Korean are told by their scripts: kana means Japanese, hangul Korean, Han
without either Chinese (written simplified or traditional). Other texts go to py3langid, whose
confidence decides between a wanted language and the rest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from cluster.errors import UserError

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3041-\u30ff\uff66-\uff9f]")
_HANGUL = re.compile(r"[\uac00-\ud7af\u1100-\u11ff]")
_LETTER = re.compile(r"[^\W\d_]")
_SAMPLE_CHARS = 1500
_CJK_WEIGHT = (
    2.5  # a Han or hangul character says about as much as this many letters of an alphabet
)


def _sample(text: str) -> str:
    """Beginning and middle: menus at the top of a page should not decide alone."""
    if len(text) <= 2 * _SAMPLE_CHARS:
        return text
    middle = len(text) // 2
    return text[:_SAMPLE_CHARS] + "\n" + text[middle : middle + _SAMPLE_CHARS]


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def known_languages() -> frozenset[str]:
    """ISO 639-1 codes that can be told."""
    return frozenset(_identifier().labels)


def check_languages(languages: Sequence[str]) -> None:
    """A language that cannot be told is a UserError."""
    unknown = sorted(set(languages) - known_languages())
    if unknown:
        raise UserError(
            f"languages {', '.join(unknown)} cannot be identified;"
            " expected ISO 639-1 codes such as en, zh"
        )


def _by_script(text: str) -> str | None:
    han, kana, hangul = (len(p.findall(text)) for p in (_HAN, _KANA, _HANGUL))
    letters = len(_LETTER.findall(text))
    cjk = han + kana + hangul
    if cjk == 0 or cjk * _CJK_WEIGHT < letters - cjk:
        return None
    if hangul > cjk / 4:
        return "ko"
    return "ja" if kana > cjk / 10 else "zh"


def identify(text: str, wanted: Sequence[str], threshold: float = 0.3) -> str:
    """The language's code. A wanted one wins if its probability reaches `threshold`, or is the
    highest.
    """
    sample = _sample(text)
    script = _by_script(sample)
    if script is not None:
        return script
    ranking = _identifier().rank(sample)
    for language, probability in ranking:
        if language in wanted:
            return language if probability >= threshold else ranking[0][0]
    return ranking[0][0]
