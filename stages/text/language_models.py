"""The built-in models that tell languages apart: py3langid, CLD2, and the mean of both.

Both lie inside their packages. They err on different texts (naive Bayes over byte n-grams of 140
languages; quadgrams and words of 160), so their mean is right more often than either, and CLD2
costs a twentieth of the other's time: `python -m tests.bench language` prints how often.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

Ranking = list[tuple[str, float]]
"""Language codes with their probabilities, likeliest first."""

# Both models' labels, here because opening one to check a config takes a second.
_PY3LANGID = """
    ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext
    fa fi fo fr fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja
    jv ka kab kik kk km kn ko ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no
    nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk
    tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu zxx
"""
_CLD2 = """
    aa ab af ak am ar as ay az ba be bg bh bi bn bo br bs ca ceb chr co crs cs cy da de dv dz el en
    eo es et eu fa fi fj fo fr fy ga gd gl gn gu gv ha haw he hi hmn hr ht hu hy ia id ie ig ik is
    it iu ja jv ka kha kk kl km kn ko ks ku ky la lb lg lif ln lo lt lv mfe mg mi mk ml mn mr ms mt
    my na nb ne nl nn nr nso ny oc om or pa pl ps pt qu rm rn ro ru rw sa sco sd sg si sk sl sm sn
    so sq sr ss st su sv sw syr ta te tg th ti tk tl tn to tr ts tt ug uk ur uz ve vi vo war wo xh
    yi yo za zh zu
"""
PY3LANGID_LABELS, CLD2_LABELS = frozenset(_PY3LANGID.split()), frozenset(_CLD2.split())
_OLD_CODES = {"iw": "he", "jw": "jv", "no": "nb", "zh-Hant": "zh"}
_ENOUGH_CHARS = 500
"""py3langid, the slower of the two, gets so many from the beginning and from the middle."""
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]")
"""What CLD2 refuses as no UTF-8, besides the last two code points of every plane."""


class LanguageModel(Protocol):
    """What tells languages that their script does not."""

    labels: frozenset[str] | None
    """What it can tell, if it says."""

    def rank(self, text: str) -> Ranking:
        """All labels of any weight, likeliest first."""


class Py3LangId:
    """Naive Bayes over byte n-grams."""

    labels: frozenset[str] | None = PY3LANGID_LABELS

    def rank(self, text: str) -> Ranking:
        """As `LanguageModel.rank`."""
        ranking: Ranking = _identifier().rank(text)
        return ranking


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.nb_ptc = identifier.nb_ptc.astype("float32")  # as each product makes of it anyway
    return identifier


class Cld2:
    """Chromium's Compact Language Detector 2; a label's probability is its share of the text."""

    labels: frozenset[str] | None = CLD2_LABELS

    def rank(self, text: str) -> Ranking:
        """As `LanguageModel.rank`; less than 1 in all where it leaves some of the text open."""
        import pycld2

        try:
            reliable, _, answer = pycld2.detect(_NOT_TEXT.sub(" ", text), isPlainText=True)
        except pycld2.error:
            return []
        if not reliable:
            return []
        found = [(_OLD_CODES.get(code, code), share / 100) for _, code, share, _ in answer]
        return [(code, share) for code, share in found if share and code in CLD2_LABELS]


class BothModels:
    """The default: the mean of py3langid's and CLD2's probabilities. What CLD2 leaves open is
    py3langid's to tell, and so is English: CLD2 takes for it what it hardly knows.
    """

    labels: frozenset[str] | None = PY3LANGID_LABELS | CLD2_LABELS

    def __init__(self) -> None:
        self._models = Py3LangId(), Cld2()

    def rank(self, text: str) -> Ranking:
        """As `LanguageModel.rank`."""
        slow, fast = self._models
        langid, cld2 = dict(slow.rank(_less(text))), dict(fast.rank(text))
        if "en" in cld2:
            cld2["en"] = min(cld2["en"], langid.get("en", 0.0))
        left = 1 - sum(cld2.values()) / 2
        mean = {code: share / 2 for code, share in cld2.items()}
        for code, probability in langid.items():
            mean[code] = mean.get(code, 0.0) + probability * left
        return sorted(mean.items(), key=lambda item: -item[1])


def _less(text: str) -> str:
    middle = len(text) // 2
    if middle <= _ENOUGH_CHARS:
        return text
    return f"{text[:_ENOUGH_CHARS]}\n{text[middle : middle + _ENOUGH_CHARS]}"
