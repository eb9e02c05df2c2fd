"""Pages of questions with answers, and dialogues."""

from __future__ import annotations

from random import Random

from stages.examples.pages.lessons import told_exercise
from stages.examples.pages.page import Page, coined_name, into_paragraphs
from stages.examples.pages.stories import story_sentences
from stages.tasks.arithmetic import draw_exercise
from stages.tasks.chinese import full_width
from stages.tasks.questions import all_questions
from stages.tasks.small_talk import draw_talk
from stages.tasks.template import expand
from stages.tasks.words import PEOPLE_NAMES

_ASKED = {
    "en": (
        "Question: {q} Answer: {a}",
        "{n} asked: {q} {a}",
        "[Somebody wrote|A reader from {c} wants to know]: {q} [Our answer|The answer]: {a}",
    ),
    "zh": ("问:{q}答:{a}", "{n}问:{q}{a}", "{c}的读者想知道:{q}回答是:{a}"),
}
_FRAME = {
    "en": (
        "[These questions were sent in from {c}|Readers of the {c} paper asked the "
        "following|Here are "
        "questions collected in {c}], and {n} [answered them|found the answers|wrote them down].",
    ),
    "zh": ("[这些问题来自{c}的读者|下面是在{c}收集的问题],由{n}[回答|记录]。",),
}
_SPOKEN = {
    "en": (
        "{x} [asked|wanted to know]: {q} {y} [answered|said|knew]: {a}",
        '"{q}" asked {x}. {y} said: {a}',
        "{x} turned to {y} and asked: {q} And {y} [replied|told {x}]: {a}",
    ),
    "zh": (
        "{x}问:“{q}”{y}说:“{a}”",
        "{x}想知道:“{q}”{y}[回答|想了一下说]:“{a}”",
        "“{q}”{x}问道。“{a}”{y}说。",
    ),
}
_SETTING = {
    "en": (
        "{x} and {y} [were walking|sat on a bench|waited for the boat] [near|in|outside] {c}.",
        "[They walked on towards {c}|A bell rang in {c}|It began to rain over {c}], and {x} "
        "[went on|thought for a moment|smiled].",
    ),
    "zh": (
        "{x}和{y}[坐在|走在|等在]{c}[的路边|的桥上|的门口]。",
        "[他们继续往{c}走|{c}的钟响了],{x}[想了想|笑了笑]。",
    ),
}
_TITLES = {
    "en": ("[Questions from {c}|Ask {n}|Your questions]", "[A talk in {c}|On the way to {c}]"),
    "zh": ("[{c}问答|{n}答读者问]", "[{c}的谈话|去{c}的路上]"),
}


def _fill(random: Random, template: str, language: str, **slots: str) -> str:
    wide = full_width(template) if language == "zh" else template
    return expand(random, wide, **slots)


def _asked(random: Random, language: str, count: int) -> list[tuple[str, str]]:
    pool = [q for q in all_questions() if q.language == language and q.split == "train"]
    return [(question.prompt, question.sentence) for question in random.sample(pool, count)]


def write_questions(random: Random, language: str) -> Page:
    """Questions about the world and their answers, one a line."""
    slots = {
        "c": coined_name(random, language),
        "n": random.choice(PEOPLE_NAMES)[language],
    }
    paragraphs = [_fill(random, random.choice(_FRAME[language]), language, **slots)]
    for question, answer in _asked(random, language, random.randint(7, 11)):
        line = random.choice(_ASKED[language])
        paragraphs.append(_fill(random, line, language, q=question, a=answer, **slots))
    _, story = story_sentences(random, language, random.randint(4, 8))
    paragraphs += into_paragraphs(random, story, language)
    return Page(
        _fill(random, _TITLES[language][0], language, **slots), paragraphs, language, "questions"
    )


def write_dialogue(random: Random, language: str, largest: int) -> Page:
    """Two people talk: small talk, facts, a sum now and then."""
    x, y = (person[language] for person in random.sample(PEOPLE_NAMES, 2))
    place = coined_name(random, language)
    talk = draw_talk(random, language)
    turns = [(talk.prompt, talk.polite), *_asked(random, language, random.randint(4, 7))]
    _, story = story_sentences(random, language, random.randint(7, 10))
    paragraphs = []
    for index, (question, answer) in enumerate(turns):
        if index % 3 == 0:
            said = _fill(random, random.choice(_SETTING[language]), language, x=x, y=y, c=place)
            if said not in paragraphs:
                paragraphs.append(said)
        line = random.choice(_SPOKEN[language])
        paragraphs.append(_fill(random, line, language, q=question, a=answer, x=x, y=y))
        paragraphs.append((" " if language == "en" else "").join(story[index * 2 : index * 2 + 2]))
        if random.random() < 0.15:
            exercise = draw_exercise(random, split="train", largest=largest)
            paragraphs.append(told_exercise(random, exercise, language, x))
        if random.random() < 0.5:
            x, y = y, x
    title = _fill(random, _TITLES[language][1], language, c=place)
    return Page(title, paragraphs, language, "dialogue")
