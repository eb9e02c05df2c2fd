"""A page before it becomes HTML, and the small means all page writers share."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

FEMALE = frozenset(
    [
        "Anna",
        "Clara",
        "Emma",
        "Grace",
        "Irene",
        "Karin",
        "Maria",
        "Nora",
        "Paula",
        "Rosa",
        "Teresa",
        "Vera",
        "Zoe",
        "Bella",
        "Daria",
        "Fiona",
        "Helena",
        "Julia",
        "Lydia",
        "Nadia",
    ]
)
_ONSETS = [
    "b",
    "br",
    "d",
    "f",
    "g",
    "gr",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "z",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai"]
_CODAS = ["", "", "l", "n", "r", "s"]
_CHINESE_SYLLABLES = "安巴达德尔法格哈加卡拉利玛米纳诺帕罗萨塔维亚泽"


@dataclass
class Page:
    """A page's main text with what is known about it."""

    title: str
    paragraphs: list[str]
    language: str
    topic: str
    kind: str = "good"
    keep: bool = True
    of: str | None = None
    pii: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Ids of evaluation problems leaked in it."""

    @property
    def text(self) -> str:
        """The main text, one paragraph a line."""
        return "\n".join(self.paragraphs)


def coined_name(random: Random, language: str) -> str:
    """A name nobody has read before, to be copied through a page, such as "Trelasor"."""
    if language == "zh":
        return "".join(random.sample(_CHINESE_SYLLABLES, random.choice((2, 3))))
    syllables = [
        random.choice(_ONSETS) + random.choice(_VOWELS) + random.choice(_CODAS)
        for _ in range(random.choice((2, 3)))
    ]
    return "".join(syllables).capitalize()


def listing(items: list[str], language: str) -> str:
    """ "a, b and c", or the Chinese for it."""
    if len(items) == 1:
        return items[0]
    join, last = (", ", " and ") if language == "en" else ("、", "和")
    return join.join(items[:-1]) + last + items[-1]


def into_paragraphs(
    random: Random, sentences: list[str], language: str, sizes: tuple[int, int] = (3, 6)
) -> list[str]:
    """Sentences in their order, grouped into paragraphs of `sizes` sentences."""
    paragraphs = []
    start = 0
    while start < len(sentences):
        size = random.randint(*sizes)
        joined = (" " if language == "en" else "").join(sentences[start : start + size])
        paragraphs.append(joined)
        start += size
    if len(paragraphs) > 1 and len(paragraphs[-1]) < 60:
        tail = paragraphs.pop()
        paragraphs[-1] += (" " if language == "en" else "") + tail
    return paragraphs


def capitalized(text: str) -> str:
    """`text` with its first letter upper case, the rest as it is."""
    return text[:1].upper() + text[1:]
