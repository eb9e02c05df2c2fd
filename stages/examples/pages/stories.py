"""Stories in which people carry things from place to place.

The story keeps the state (who is where, who holds what) and speaks of it again later, so that a
reader must remember what was said many sentences ago.
"""

from __future__ import annotations

from random import Random

from stages.examples.pages.page import Page, capitalized, coined_name, into_paragraphs, listing
from stages.tasks.chinese import full_width
from stages.tasks.template import expand
from stages.tasks.words import NOUNS, PEOPLE_NAMES

_THINGS = "lamp basket candle mirror ladder hammer pillow letter carpet pencil bottle ticket rope drum feather"  # noqa: E501
_PLACES = "garden market bridge station kitchen castle village forest island mountain"
_BY_ENGLISH = {noun["en"]: noun for noun in NOUNS}

_EN = {
    "open": (
        "[One morning|Late one evening|On a cold day|Long ago|Last winter|In early spring], {cast} "
        "[met|came together|sat down to talk] in {town}, a [small|quiet|busy|windy] place "
        "[near the sea|behind the hills|by the old road|that few people visit].",
        "In {town} lived {cast}, who [knew each other well|had been friends since school|shared "
        "almost everything|often quarrelled and always made peace].",
    ),
    "start": (
        "{p} was in the {place} and [held|carried|had brought] the {thing}.",
        "{p} [waited|stood|rested] in the {place} with the {thing} [close at hand|in a bag|under "
        "one arm].",
    ),
    "go": (
        "[Then|After a while|Soon|A little later|Before noon] {p} [went|walked|hurried|wandered] "
        "[from the {place} |]to the {goal}.",
        "{p} left the {place} and [took the path|set out|made the short trip] to the {goal}.",
        "[Tired of|Leaving] the {place}, {p} [looked for|came to|reached] the {goal}[ at "
        "dusk| alone|].",
        "The {goal} was not far, and {p} [liked|chose|found] it better than the {place}.",
        "[A short walk|A narrow lane|An old track] led {p} to the {goal}.",
        "Because [of the rain|it was late|the wind was rising|the bells were ringing], {p} "
        "[moved on|went] to the {goal}.",
    ),
    "meet": (
        "{q} was already [there|in the {place}], [smiling|half asleep|reading|counting the birds].",
        "There {p} [found|met|greeted] {q}.",
        "[Who sat there but|And there stood|Nobody was there except] {q}[, whistling a tune|, as "
        "always|].",
    ),
    "give": (
        "{p} [gave|handed|passed] the {thing} to {q}[, who said thank you| without a word|, and "
        "both of them laughed].",
        '"[Please|Would you] keep the {thing} for me," said {p}, and {q} took it.',
    ),
    "swap": ("{p} and {q} [traded|exchanged]: the {thing} for the {other}.",),
    "recall": (
        "[By now|At that moment|So] the {thing} was with {p} in the {place}.",
        "[Nobody else knew|Everyone could see|It was no secret] that {p} had the {thing}.",
        "{p} was still in the {place}[, thinking about {town}|, and so was the {thing}].",
        "[Without {p}|But for {p}] the {thing} [would have been lost|might be anywhere].",
        "If you looked for the {thing}, you had to ask {p}.",
    ),
    "muse": (
        "[The road to {town} was empty|The sky over {town} turned dark|A bell rang somewhere in "
        "{town}|People in {town} still talk about that day].",
        "[Who would have thought|It is hard to say why|{p} often wondered why] {q} "
        "[never asked|said so little|wanted to stay].",
        "{p} [told|asked] {q} about {friend}, [a cousin|a neighbour|an old friend] from {town}.",
        "[A letter from {friend} had come that week|{friend} had promised to visit soon|Nothing "
        "had been heard of {friend} for a month].",
        "[Rain fell on the roofs|Snow lay on the fields|Smoke rose above the houses], and {q} "
        "[sang softly|told an old tale|counted the minutes|ate an apple].",
        "[Years ago|As a child] {p} had [sailed|travelled] with {friend} on a ship called {coin}.",
        "{q} had read a book about {coin}, and {p} [wanted to borrow it|did not believe a word].",
        "The dog of {friend}, named {coin}, [barked twice|ran past {p}|slept in the sun].",
    ),
    "close": (
        "[In the end|When night came|At last], {state}.",
        "[That is how it ended|So the day closed]: {state}.",
    ),
    "held": ("the {thing} was with {p}",),
    "title": ("[The|A] [day|story|morning|journey] of {p} in {town}", "{p} and the {thing}"),
}
_ZH = {
    "open": (
        "[一天早上|很久以前|去年冬天|初春的一天|一个寒冷的夜晚],{cast}在[安静的|热闹的|多风的|小小的]"
        "{town}[见了面|坐下来聊天|碰到了一起]。",
        "{town}住着{cast},他们[从小就认识|是多年的朋友|常常吵架又和好|什么都一起分享]。",
    ),
    "start": (
        "{p}在{place}里,[手里拿着|身边放着|带着]{thing}。",
        "{p}[等在|站在|坐在]{place}里,{thing}[就在旁边|放在袋子里|夹在胳膊下面]。",
    ),
    "go": (
        "[后来|过了一会儿|不久|中午之前],{p}[走到|赶到|去了]{goal}。",
        "{p}离开{place},[沿着小路|慢慢|匆匆]来到{goal}。",
        "因为[下雨了|天色晚了|起风了|钟声响了],{p}[就去了|只好去]{goal}。",
    ),
    "meet": (
        "{q}已经在{place}里,[正在微笑|正在看书|快睡着了|数着飞鸟]。",
        "{p}在那里[遇见|看见|找到]了{q}。",
    ),
    "give": (
        "{p}把{thing}[交给|递给|送给]{q}[,{q}说了声谢谢|,什么也没说|,两个人都笑了]。",
        "{p}说:“[请|麻烦你]替我保管{thing}。”{q}收下了。",
    ),
    "swap": ("{p}和{q}交换了东西:用{thing}换{other}。",),
    "recall": (
        "[这时|现在|于是],{thing}在{p}那里,{p}在{place}里。",
        "[没有别人知道|大家都看见|谁都清楚],{thing}在{p}手里。",
        "{p}还在{place}里[,想着{town}的事|,{thing}也在]。",
    ),
    "muse": (
        "[通往{town}的路上没有人|{town}的天空暗了下来|{town}的人至今还谈起那一天]。",
        "[谁也想不到|很难说清|{p}常常想]为什么{q}[从来不问|话这么少|想留下来]。",
        "[雨落在屋顶上|田野里都是雪|屋顶上冒着烟],{q}[轻轻唱歌|讲了一个老故事|吃着苹果]。",
        "[多年以前|小时候],{p}和{friend}坐过一条叫{coin}的船。",
        "{q}读过一本关于{coin}的书,{p}[很想借来看|一个字也不信]。",
        "{friend}的狗叫{coin},[叫了两声|从{p}身边跑过|在太阳下睡觉]。",
        "{p}向{q}[说起|问起]{friend},那是{town}的[一位老朋友|一位邻居|一个亲戚]。",
        "[{friend}那个星期来了信|{friend}答应很快来看他们|一个月没有{friend}的消息了]。",
    ),
    "close": ("[最后|到了晚上|终于],{state}。", "[事情就这样结束了|这一天就这样过去了]:{state}。"),
    "held": ("{thing}在{p}那里",),
    "title": ("{p}在{town}的[一天|故事|早晨|旅行]", "{p}和{thing}"),
}
_BANKS = {
    "en": _EN,
    "zh": {key: tuple(full_width(line) for line in lines) for key, lines in _ZH.items()},
}


class _Story:
    """The state of a story: where people are and who holds each thing."""

    def __init__(self, random: Random, language: str) -> None:
        self.random, self.language = random, language
        people = random.sample(PEOPLE_NAMES, 4)
        *self.cast, self.friend = (person[language] for person in people)
        self.places = [_BY_ENGLISH[w][language] for w in random.sample(_PLACES.split(), 4)]
        self.things = [_BY_ENGLISH[w][language] for w in random.sample(_THINGS.split(), 3)]
        self.town = coined_name(random, language)
        self.where = {person: random.choice(self.places) for person in self.cast}
        self.holder = dict(zip(self.things, self.cast, strict=True))

    def say(self, bank: str, **slots: str) -> str:
        """A sentence of the bank."""
        lines = _BANKS[self.language][bank]
        slots = {"town": self.town, "friend": self.friend, **slots}
        coin = coined_name(self.random, self.language)
        return capitalized(expand(self.random, self.random.choice(lines), coin=coin, **slots))

    def step(self) -> list[str]:
        """One event and what is said about it."""
        random = self.random
        p = random.choice(self.cast)
        q = random.choice([other for other in self.cast if other != p])
        here = self.where[p]
        said = []
        event = random.random()
        if event < 0.4 or (event < 0.65 and self.where[q] != here):
            goal = random.choice([place for place in self.places if place != here])
            said.append(self.say("go", p=p, place=here, goal=goal))
            self.where[p] = goal
            company = [other for other in self.cast if other != p and self.where[other] == goal]
            if company:
                said.append(self.say("meet", p=p, q=random.choice(company), place=goal))
        elif event < 0.65:
            said.append(self._exchange(p, q))
        elif event < 0.85:
            thing = random.choice(self.things)
            holder = self.holder[thing]
            said.append(self.say("recall", p=holder, thing=thing, place=self.where[holder]))
        else:
            said.append(self.say("muse", p=p, q=q))
        return said

    def _exchange(self, p: str, q: str) -> str:
        mine = [thing for thing in self.things if self.holder[thing] == p]
        yours = [thing for thing in self.things if self.holder[thing] == q]
        if mine and yours:
            thing, other = self.random.choice(mine), self.random.choice(yours)
            self.holder[thing], self.holder[other] = q, p
            return self.say("swap", p=p, q=q, thing=thing, other=other)
        if mine:
            thing = self.random.choice(mine)
            self.holder[thing] = q
            return self.say("give", p=p, q=q, thing=thing)
        return self.say("muse", p=p, q=q)

    def ending(self) -> str:
        """Who holds what in the end, in another order than it was told at first."""
        things = self.random.sample(self.things, len(self.things))
        (line,) = _BANKS[self.language]["held"]
        held = [line.format(thing=thing, p=self.holder[thing]) for thing in things]
        return self.say("close", state=listing(held, self.language))


def story_sentences(random: Random, language: str, steps: int) -> tuple[str, list[str]]:
    """A title and the sentences of a story of `steps` events."""
    story = _Story(random, language)
    sentences = [story.say("open", cast=listing(story.cast, language))]
    for thing, person in story.holder.items():
        sentences.append(story.say("start", p=person, thing=thing, place=story.where[person]))
    for _ in range(steps):
        sentences += [said for said in story.step() if said not in sentences]
    sentences.append(story.ending())
    return story.say("title", p=story.cast[0], thing=story.things[0]), sentences


def write_story(random: Random, language: str) -> Page:
    """A story page."""
    title, sentences = story_sentences(random, language, random.randint(12, 20))
    return Page(title, into_paragraphs(random, sentences, language), language, "story")
