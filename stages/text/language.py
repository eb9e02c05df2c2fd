"""Which language a text is in, offline: the script decides where it can, a model elsewhere.

Chinese, Japanese and Korean are told by their scripts: kana means Japanese, hangul Korean, Han
without either Chinese, and whether that is written simplified or traditional by the characters that
only GB 2312 or only Big5 holds. Other texts go to the built-in models, or to a fastText model by
path (GlotLID, lid.176). Their regional labels come out under the name of the language asked for:
`yue` and `wuu` on a page are Chinese to a reader of `zh`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cluster.errors import UserError
from stages.text.language_models import (
    CLD2_LABELS,
    PY3LANGID_LABELS,
    BothModels,
    LanguageModel,
)

SAME = {
    "yue": "zh",
    "wuu": "zh",
    "cmn": "zh",
    "zho": "zh",
    "lzh": "zh",
    "nan": "zh",
    "hak": "zh",
    "no": "nb",
    "nor": "nb",
    "arb": "ar",
    "arz": "ar",
    "ary": "ar",
    "zsm": "ms",
    "pes": "fa",
    "prs": "fa",
    "swh": "sw",
    "lvs": "lv",
    "ekk": "et",
    "uzn": "uz",
    "khk": "mn",
    "azj": "az",
    "als": "sq",
    "npi": "ne",
    "ory": "or",
    "ydd": "yi",
    "plt": "mg",
    "kmr": "ku",
    "pbt": "ps",
    "gaz": "om",
    "fil": "tl",
}
"""Label -> the language that a reader means by it (ISO 639-3's individual languages, and models'
regional labels)."""
KNOWN_LANGUAGES = PY3LANGID_LABELS | CLD2_LABELS
SCRIPTS = ("Hans", "Hant")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3041-\u30ff\uff66-\uff9f]")
_HANGUL = re.compile(r"[\uac00-\ud7af\u1100-\u11ff]")
_LETTER = re.compile(r"[^\W\d_]")
_SAMPLE_CHARS = 1500
# A Han or hangul character says about as much as this many letters of an alphabet.
_CJK_WEIGHT = 2.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """`language` as it was asked for where `accepted`; else the likeliest, or "uncertain"."""

    language: str
    accepted: bool
    probability: float


def _sample(text: str) -> str:
    """Beginning and middle: menus at the top of a page should not decide alone."""
    if len(text) <= 2 * _SAMPLE_CHARS:
        return text
    middle = len(text) // 2
    return text[:_SAMPLE_CHARS] + "\n" + text[middle : middle + _SAMPLE_CHARS]


def canonical(code: str) -> str:
    """The language behind a label, without its script: `zh` for `yue`, `zh-Hant`, `cmn_Hani`."""
    base = re.split(r"[-_]", code, maxsplit=1)[0]
    return SAME.get(base, base)


def check_languages(
    languages: Sequence[str],
    thresholds: Mapping[str, float] | None = None,
    labels: Iterable[str] | None = KNOWN_LANGUAGES,
) -> None:
    """A language that cannot be told, or a threshold for one not asked for, is a UserError."""
    known = {canonical(code) for code in (languages if labels is None else labels)}
    unknown = sorted(code for code in set(languages) if canonical(code) not in known)
    unknown += sorted(
        code
        for code in set(languages)
        if "-" in code and (canonical(code) != "zh" or code.split("-")[1] not in SCRIPTS)
    )
    if unknown:
        raise UserError(
            f"languages {', '.join(unknown)} cannot be identified;"
            " expected ISO 639-1 codes such as en, zh, or zh-Hans and zh-Hant for one script"
        )
    stray = sorted(set(thresholds or ()) - set(languages))
    if stray:
        raise UserError(
            f"language_thresholds names {', '.join(stray)}, but languages are"
            f" {', '.join(languages)}: add them there, or drop their thresholds"
        )


@lru_cache(maxsize=1)
def _written_only() -> tuple[frozenset[str], frozenset[str]]:
    """Han characters that only GB 2312 (simplified) and that only Big5 (traditional) holds."""

    def held(codec: str) -> set[str]:
        block = "".join(map(chr, range(0x4E00, 0xA000)))
        return set(block.encode(codec, "ignore").decode(codec))

    simplified, traditional = held("gb2312"), held("big5")
    return frozenset(simplified - traditional), frozenset(traditional - simplified)


def chinese_script(text: str) -> str:
    """ "Hans" or "Hant", whichever has more characters of its own; "Hani" where neither has."""
    simplified, traditional = _written_only()
    hans = sum(char in simplified for char in text)
    hant = sum(char in traditional for char in text)
    return "Hani" if hans == hant else "Hans" if hans > hant else "Hant"


def _by_script(text: str) -> tuple[str, float] | None:
    """Language and its share of the text's letters, where Han, kana and hangul prevail."""
    han, kana, hangul = (len(p.findall(text)) for p in (_HAN, _KANA, _HANGUL))
    letters = len(_LETTER.findall(text))
    cjk = han + kana + hangul
    if cjk == 0 or cjk * _CJK_WEIGHT < letters - cjk:
        return None
    share = cjk * _CJK_WEIGHT / (cjk * _CJK_WEIGHT + letters - cjk)
    if hangul > cjk / 4:
        return "ko", share
    return ("ja" if kana > cjk / 10 else "zh"), share


class Identifier:
    """Tells whether a text is in one of the `wanted` languages.

    Without a threshold of its own a wanted language wins if its probability reaches `threshold`, or
    is the highest. With one it must reach that.
    """

    def __init__(
        self,
        wanted: Sequence[str],
        threshold: float = 0.3,
        thresholds: Mapping[str, float] | None = None,
        model: LanguageModel | None = None,
    ) -> None:
        self._threshold = threshold
        self._thresholds = dict(thresholds or {})
        self._model = model or BothModels()
        self._wanted: dict[str, list[str]] = {}
        for name in wanted:
            self._wanted.setdefault(canonical(name), []).append(name)

    def __call__(self, text: str) -> Verdict:
        """The verdict on a text; its beginning and middle are enough."""
        sample = _sample(text)
        script = _by_script(sample)
        if script is not None:
            return self._decide(*script, sample, *script)
        ranking = self._model.rank(sample)
        merged: dict[str, float] = {}
        for label, probability in ranking:
            code = canonical(label)
            merged[code] = merged.get(code, 0.0) + probability
        top, highest = max(merged.items(), key=lambda item: item[1])
        for code, probability in merged.items():
            if code in self._wanted:
                return self._decide(code, probability, sample, top, highest)
        return Verdict(top, False, highest)

    def accepts(self, declared: str, text: str) -> Verdict:
        """The verdict where the language is known already (as ISO 639-1 or 639-3) and only the
        script is open.
        """
        code = canonical(declared)
        if len(code) == 3:
            from stages.text.fasttext_model import two_letters

            code = two_letters().get(code, code)
        return self._decide(code, 1.0, _sample(text), code, 1.0)

    def _decide(
        self, code: str, probability: float, sample: str, top: str, highest: float
    ) -> Verdict:
        name = self._name(code, sample)
        if name is None:
            found = f"zh-{chinese_script(sample)}" if code in self._wanted else code
            return Verdict(found, False, probability)
        own = self._thresholds.get(name)
        if own is None:
            accepted = probability >= self._threshold or code == top
        else:
            accepted = probability >= own
        if accepted:
            return Verdict(name.split("-")[0], True, probability)
        return Verdict(top if top != code else "uncertain", False, highest)

    def _name(self, code: str, sample: str) -> str | None:
        """Under which name this language was asked for; None if not, or not in this script."""
        names = self._wanted.get(code, [])
        plain = [name for name in names if "-" not in name]
        if plain or not names:
            return plain[0] if plain else None
        script = chinese_script(sample)
        return next((name for name in names if script in (name.split("-")[1], "Hani")), None)


def identify(text: str, wanted: Sequence[str], threshold: float = 0.3) -> str:
    """The language's code. A wanted one wins if its probability reaches `threshold`, or is the
    highest.
    """
    return Identifier(wanted, threshold)(text).language


def load_model(path: str | Path) -> LanguageModel:
    """A fastText language model (.bin or .ftz) such as GlotLID's or lid.176."""
    from stages.text.fasttext_model import FastTextModel

    return FastTextModel(Path(path))
