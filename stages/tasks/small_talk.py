"""Small talk: what people say to be friendly, and what may be said back, politely or not."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from stages.tasks.chinese import full_width
from stages.tasks.template import expand, match
from stages.tasks.words import PEOPLE_NAMES


@dataclass(frozen=True)
class Exchange:
    """A way to open (with an optional {name}) and the polite, the terse and the odd reply."""

    opening: str
    polite: str
    terse: str


ENGLISH = (
    Exchange("Hello, I am {name}.", "Hello {name}, I am glad to meet you.", "Hello."),
    Exchange("Good morning, I am {name}.", "Good morning {name}, how can I help?", "Morning."),
    Exchange("I am {name}. Can you help me?", "Of course {name}, I am happy to help.", "Yes."),
    Exchange("{name} says thank you.", "You are welcome {name}, please come again.", "OK."),
    Exchange("{name} says goodbye.", "Goodbye {name}, thank you for the talk.", "Bye."),
    Exchange("{name} is tired today.", "I am sorry to hear that {name}, please rest.", "Oh."),
    Exchange("{name} has good news.", "I am glad to hear that {name}, thank you.", "Good."),
    Exchange("How are you? I am {name}.", "I am well {name}, thank you for asking.", "Fine."),
)
CHINESE = (
    Exchange("你好,我是{name}。", "你好{name},很高兴认识你。", "你好。"),
    Exchange("早上好,我叫{name}。", "早上好{name},请问需要什么帮助?", "早。"),
    Exchange("{name}说谢谢你。", "不客气{name},欢迎再来。", "嗯。"),
    Exchange("{name}要走了,再见。", "再见{name},谢谢你来聊天。", "再见。"),
    Exchange("{name}今天有点累。", "辛苦了{name},请好好休息。", "哦。"),
)
COURTESIES = (
    *("glad", "happy", "welcome", "thank", "please", "sorry", "help"),
    *("高兴", "请", "不客气", "谢谢"),
)


def _localized(exchange: Exchange, language: str) -> Exchange:
    if language == "en":
        return exchange
    return Exchange(
        full_width(exchange.opening), full_width(exchange.polite), full_width(exchange.terse)
    )


_EXCHANGES = {
    "en": tuple(_localized(exchange, "en") for exchange in ENGLISH),
    "zh": tuple(_localized(exchange, "zh") for exchange in CHINESE),
}


@dataclass(frozen=True)
class Talk:
    """One opening of small talk with its polite and terse reply, and the name to address."""

    prompt: str
    polite: str
    terse: str
    name: str
    language: str


def draw_talk(random: Random, language: str) -> Talk:
    """An opening by someone."""
    exchange = random.choice(_EXCHANGES[language])
    name = random.choice(PEOPLE_NAMES)[language]
    return Talk(
        expand(random, exchange.opening, name=name), expand(random, exchange.polite, name=name),
        exchange.terse, name, language,
    )  # fmt: skip


def talk_of(prompt: str) -> Talk | None:
    """The small talk that `prompt` opens, or None."""
    for language, exchanges in _EXCHANGES.items():
        for exchange in exchanges:
            slots = match(exchange.opening, prompt)
            if slots:
                polite = exchange.polite.format(name=slots["name"])
                return Talk(prompt, polite, exchange.terse, slots["name"], language)
    return None
