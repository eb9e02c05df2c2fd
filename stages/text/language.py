"""Which language a text is in, offline: the script decides where it can, py3langid elsewhere.

Chinese, Japanese and Korean are told by their scripts: kana means Japanese, hangul Korean, Han
without either Chinese (written simplified or traditional). Other texts go to py3langid, whose
confidence decides between a wanted language and the rest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from cluster.errors import UserError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# The labels of py3langid's model, here because opening it to check a config takes a second.
_LABELS = """
    ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext
    fa fi fo fr fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja
    jv ka kab kik kk km kn ko ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no
    nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk
    tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu zxx
"""
KNOWN_LANGUAGES = frozenset(_LABELS.split())
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
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.nb_ptc = identifier.nb_ptc.astype("float32")  # as each product makes of it anyway
    return identifier


def check_languages(languages: Sequence[str]) -> None:
    """A language that cannot be told is a UserError."""
    unknown = sorted(set(languages) - KNOWN_LANGUAGES)
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
