"""Encyclopedic articles about the people, cities and animals of the world."""

from __future__ import annotations

from random import Random

from stages.examples.pages.page import FEMALE, Page, capitalized, coined_name, into_paragraphs
from stages.examples.pages.stories import story_sentences
from stages.tasks.chinese import full_width
from stages.tasks.names import Name
from stages.tasks.questions import statement
from stages.tasks.template import expand
from stages.tasks.world import Entity, the_world

# {s} the subject's name, {he}/{his} its pronouns, {v} the value, {c} a coined name.
_EN = {
    "job": (
        "{s} [earns a living|is employed|has made a name] as [a|the town's best known] {v}.",
        "[For many years|Since leaving school|After some trying], {he} has worked as a {v} "
        "[at a workshop called {c}|together with a partner named {c}|with two apprentices].",
        "As a {v}, {s} is [respected|known|trusted] by [neighbours|everyone at {c}|old and young].",
    ),
    "city": (
        "{s} [lives|has a house|keeps a small flat] in {v}[, not far from {c} Street|, close to "
        "the {c} gate|].",
        "{his} home is in {v}, [where most people know {him}|a city {he} seldom leaves|on the "
        "square that is called {c}].",
    ),
    "birth": (
        "{s} was born in {v}[ during a long winter| to a large family| above a shop named {c}|].",
        "The year of {his} birth was {v}[, as the register of {c} shows|, a year of floods|].",
    ),
    "food": (
        "[At the table|On feast days|When friends come], {s} [asks for|cooks|is happy with] {v}.",
        "{his} favourite food is {v}, [which {he} learned to make at {c}|best eaten warm|and "
        "{he} eats it almost every day].",
    ),
    "pet": (
        "A {v} [follows {him} everywhere|lives in {his} house|sleeps beside {his} door], and its "
        "name is {c}.",
        "{s} keeps a {v} called {c}; [the {v} is old now|visitors like the {v} at once|{c} is "
        "well known in the street].",
    ),
    "hobby": (
        "In the evenings {he} enjoys {v}[, mostly with members of the {c} club|, alone or in "
        "company|].",
        "{his} [great love|hobby|pastime] is {v}, [which fills the free days|and the {c} prize "
        "hangs on the wall|learned from a grandparent].",
    ),
    "colour": (
        "Those who visit notice that {he} prefers {v}: [the door|the coat|the boat named {c}] is "
        "{v} too.",
        "Of all colours {s} likes {v} best.",
    ),
    "country": (
        "{s} is a city in {v}[, known to travellers since the days of {c}|, two days from the "
        "border|].",
        "It belongs to {v}, and [its people are proud of it|the governor {c} once lived here].",
    ),
    "river": (
        "{s} lies on {v}, [which freezes in hard winters|crossed here by the {c} bridge|where "
        "boats unload before sunrise].",
        "[The oldest houses|The mills|Most of the gardens] stand along {v}.",
    ),
    "product": (
        "The workshops of the {c} quarter [sell|make|are famous for] {v}.",
        "[All over the country|Far beyond the river|At every fair], {s} is known for its {v}.",
    ),
    "home": (
        "The {s} [lives|sleeps|raises its young] in {v}[, as the hunter {c} wrote|, hidden from "
        "strangers|].",
        "[Whoever looks for it|Children who search for one] should look in {v}.",
    ),
    "feed": (
        "The {s} eats {v}[ and little else| when it can find them|, above all in autumn].",
        "Its food is {v}, [and near {c} it has plenty|which it finds by smell|gathered at dusk].",
    ),
}
_ZH = {
    "job": (
        "{s}是一名{v},[在{c}作坊工作|带着两个徒弟|已经做了许多年]。",
        "[多年以来|离开学校以后],{s}一直做{v},[邻居都信任{him}|{c}的人都认识{him}]。",
    ),
    "city": (
        "{s}住在{v},[离{c}街不远|就在{c}门旁边|很少离开这座城市]。",
        "{s}的家在{v}[的{c}广场上|,大多数人都认识{him}]。",
    ),
    "birth": ("{s}出生于{v}[,那年冬天很长|,家里人很多|,{c}的名册上有记录]。", "{s}是{v}出生的。"),
    "food": (
        "[吃饭的时候|过节的时候],{s}最喜欢吃{v}。",
        "{s}爱吃{v},[是在{c}学会做的|几乎每天都吃]。",
    ),
    "pet": (
        "{s}养了一只{v},名字叫{c}。",
        "一只叫{c}的{v}[到处跟着{him}|住在{him}家里],街上的人都认识{c}。",
    ),
    "hobby": (
        "晚上{s}喜欢{v},[常和{c}俱乐部的人一起|有时一个人]。",
        "{s}的爱好是{v}[,墙上还挂着{c}奖|,是跟祖父学的]。",
    ),
    "colour": ("{s}喜欢{v},[门也是{v}的|那条叫{c}的船也是{v}的]。",),
    "country": ("{s}是{v}的一座城市[,{c}时代就有名|,离边境两天路程]。",),
    "river": ("{s}位于{v}边,[那里有{c}桥|冬天河水会结冰|天亮前有船卸货]。",),
    "product": ("{s}以{v}闻名,[{c}区的作坊最多|每个集市上都能买到]。",),
    "home": ("{s}住在{v}里[,猎人{c}这样写过|,不让人看见]。",),
    "feed": ("{s}吃{v}[,很少吃别的|,秋天吃得最多|,{c}附近有很多]。",),
}
_OPENINGS = {
    "person": "[This page is about|Few people are as well liked as|Here is what is known of] {s}.",
    "city": "[Travellers often ask about|This page describes|Many roads lead to] {s}.",
    "animal": "[Many tales are told about|This page describes|Children like] the {s}.",
}
_ZH_OPENINGS = "[本页介绍|许多人问起|下面说说]{s}。"
_BANKS = {
    "en": _EN,
    "zh": {key: tuple(full_width(line) for line in lines) for key, lines in _ZH.items()},
}
_PRONOUNS = {
    ("en", True): {"he": "she", "his": "her", "him": "her"},
    ("en", False): {"he": "he", "his": "his", "him": "him"},
    ("zh", True): {"he": "她", "his": "她的", "him": "她"},
    ("zh", False): {"he": "他", "his": "他的", "him": "他"},
}


def _fact_sentence(random: Random, entity: Entity, relation: str, value: Name, to: str) -> str:
    """A sentence that says a fact: the plain statement or a livelier one."""
    subject = entity.name[to]
    if random.random() < 0.3:
        return statement(relation, subject, value[to], to)
    if entity.kind == "person" and random.random() < 0.6:
        subject = _short_name(random, entity, to)
    female = entity.name["en"].split()[0] in FEMALE
    text = expand(
        random,
        random.choice(_BANKS[to][relation]),
        s=subject,
        v=value[to],
        c=coined_name(random, to),
        **_PRONOUNS[to, female],
    )
    if to == "en":
        for vowel in "aeiou":
            text = text.replace(f" a {vowel}", f" an {vowel}")
    return capitalized(text)


def _short_name(random: Random, entity: Entity, to: str) -> str:
    """The given name, which is nobody else's; in Chinese, often the pronoun."""
    female = entity.name["en"].split()[0] in FEMALE
    if to == "zh" and random.random() < 0.6:
        return _PRONOUNS[to, female]["he"]
    return entity.name[to].replace("·", " ").split()[0]


def _about(random: Random, entity: Entity, to: str) -> list[str]:
    facts = list(entity.facts.items())
    random.shuffle(facts)
    (first, value), *rest = facts
    named = statement(first, entity.name[to], value[to], to)
    return [named, *(_fact_sentence(random, entity, relation, v, to) for relation, v in rest)]


def write_article(random: Random, language: str) -> Page:
    """An article on one entity: its facts, those of a related one, and an anecdote."""
    world = the_world()
    entity = random.choice(random.choice((world.people, world.people, world.cities, world.animals)))
    opening = _OPENINGS[entity.kind] if language == "en" else full_width(_ZH_OPENINGS)
    sentences = [expand(random, opening, s=entity.name[language])]
    sentences += _about(random, entity, language)
    for other in _related(random, entity):
        sentences += _about(random, other, language)
    _, anecdote = story_sentences(random, language, random.randint(4, 10))
    paragraphs = into_paragraphs(random, sentences, language)
    paragraphs += into_paragraphs(random, anecdote, language)
    return Page(capitalized(entity.name[language]), paragraphs, language, "article")


def _related(random: Random, entity: Entity) -> list[Entity]:
    """The entity's city when it has one, and somebody or something else."""
    world = the_world()
    city = entity.facts.get("city")
    others = [place for place in world.cities if city and place.name == city]
    if entity.kind == "city":
        others += [p for p in world.people if p.facts["city"] == entity.name][:3]
    return [*others, random.choice(world.people + world.animals)]
