"""Questions about the world's facts, what a good answer says, and which are kept for evaluation.

Every fact may be told in training; one phrasing of each question is asked only in the evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

from stages.tasks.chinese import full_width
from stages.tasks.world import Fact, the_world

# relation -> (training questions, the evaluation's question, the full sentence)
ENGLISH = {
    "job": (
        ("What does {s} do for a living?", "What is the job of {s}?"),
        "Which trade does {s} work in?",
        "{s} works as a {v}.",
    ),
    "city": (
        ("Where does {s} live?", "In which city does {s} live?"),
        "Which city is home to {s}?",
        "{s} lives in {v}.",
    ),
    "birth": (
        ("When was {s} born?", "In what year was {s} born?"),
        "What is the birth year of {s}?",
        "{s} was born in {v}.",
    ),
    "food": (
        ("What does {s} like to eat?", "What food does {s} like best?"),
        "Which dish would please {s} most?",
        "{s} likes {v} best.",
    ),
    "pet": (
        ("What pet does {s} have?", "Which animal lives with {s}?"),
        "What animal does {s} keep at home?",
        "{s} keeps a {v}.",
    ),
    "hobby": (
        ("What does {s} do for fun?", "What is the hobby of {s}?"),
        "How does {s} spend a free day?",
        "{s} enjoys {v} in the evenings.",
    ),
    "colour": (
        ("What colour does {s} like?", "Which colour does {s} prefer?"),
        "What is the favourite colour of {s}?",
        "{s} prefers the colour {v}.",
    ),
    "country": (
        ("In which country is {s}?", "What country is {s} in?"),
        "To which country does {s} belong?",
        "{s} is a city in {v}.",
    ),
    "river": (
        ("Which river flows through {s}?", "What river is {s} on?"),
        "On the banks of which river was {s} built?",
        "{s} lies on {v}.",
    ),
    "product": (
        ("What is {s} known for?", "What does {s} make?"),
        "What do the workshops of {s} produce?",
        "{s} is known for its {v}.",
    ),
    "home": (
        ("Where does the {s} live?", "Where does the {s} make its home?"),
        "Where would you look for the {s}?",
        "The {s} lives in {v}.",
    ),
    "feed": (
        ("What does the {s} eat?", "What does the {s} feed on?"),
        "What is the food of the {s}?",
        "The {s} eats {v}.",
    ),
}
CHINESE = {
    "job": (("{s}做什么工作?", "{s}的职业是什么?"), "{s}以什么为生?", "{s}是一名{v}。"),
    "city": (("{s}住在哪里?", "{s}住在哪个城市?"), "哪座城市是{s}的家?", "{s}住在{v}。"),
    "birth": (
        ("{s}是哪一年出生的?", "{s}什么时候出生?"),
        "{s}的出生年份是什么?",
        "{s}出生于{v}。",
    ),
    "food": (("{s}喜欢吃什么?", "{s}最爱吃什么?"), "什么食物最让{s}高兴?", "{s}最喜欢吃{v}。"),
    "pet": (("{s}养什么宠物?", "{s}养了什么动物?"), "{s}家里有什么动物?", "{s}养了一只{v}。"),
    "hobby": (
        ("{s}的爱好是什么?", "{s}喜欢做什么?"),
        "{s}空闲时做什么?",
        "{s}的爱好是{v}。",
    ),
    "colour": (
        ("{s}喜欢什么颜色?", "{s}偏爱什么颜色?"),
        "{s}最爱哪种颜色?",
        "{s}喜欢{v}。",
    ),
    "country": (
        ("{s}在哪个国家?", "{s}是哪国的城市?"),
        "{s}属于哪个国家?",
        "{s}是{v}的一座城市。",
    ),
    "river": (
        ("哪条河流过{s}?", "{s}在哪条河边?"),
        "{s}建在哪条河的岸上?",
        "{s}位于{v}边。",
    ),
    "product": (
        ("{s}以什么闻名?", "{s}出产什么?"),
        "{s}的作坊生产什么?",
        "{s}以{v}闻名。",
    ),
    "home": (("{s}住在哪里?", "{s}的家在哪里?"), "到哪里能找到{s}?", "{s}住在{v}里。"),
    "feed": (("{s}吃什么?", "{s}以什么为食?"), "{s}的食物是什么?", "{s}吃{v}。"),
}
_TEMPLATES = {"en": ENGLISH, "zh": CHINESE}


@dataclass(frozen=True)
class Question:
    """A question with its full and its short right answer, and short wrong ones."""

    prompt: str
    answer: str
    sentence: str
    wrong: tuple[str, ...]
    subject: str
    relation: str
    language: str
    split: str

    def sentence_with(self, value: str) -> str:
        """The full sentence with another value in the answer's place."""
        return statement(self.relation, self.subject, value, self.language)


def statement(relation: str, subject: str, value: str, language: str) -> str:
    """The sentence that says the fact, such as "Anna Keller lives in Veldon."."""
    template = _TEMPLATES[language][relation][2]
    text = template.format(s=subject, v=value)
    if language == "en":
        for vowel in "aeiou":
            text = text.replace(f" a {vowel}", f" an {vowel}")
    return text


def _question(fact: Fact, template: str, language: str, split: str) -> Question:
    subject, value = fact.subject[language], fact.value[language]
    asked = full_width(template) if language == "zh" else template
    return Question(
        prompt=asked.format(s=subject),
        answer=value,
        sentence=statement(fact.relation, subject, value, language),
        wrong=tuple(other[language] for other in fact.others),
        subject=subject, relation=fact.relation, language=language, split=split,
    )  # fmt: skip


@cache
def all_questions() -> tuple[Question, ...]:
    """Every question about every fact, in training ("train") and evaluation ("eval") phrasing."""
    questions = []
    for fact in the_world().facts():
        for language, templates in _TEMPLATES.items():
            asked, evaluated, _ = templates[fact.relation]
            questions += [_question(fact, template, language, "train") for template in asked]
            questions.append(_question(fact, evaluated, language, "eval"))
    return tuple(questions)


@cache
def _by_prompt() -> dict[str, Question]:
    return {question.prompt: question for question in all_questions()}


def question_of(prompt: str) -> Question | None:
    """The question that `prompt` asks, word for word, or None."""
    return _by_prompt().get(prompt)


def draw_questions(
    seed: int, count: int, *, split: str, chinese_share: float = 0.25
) -> list[Question]:
    """`count` different questions of `split`; fewer when there are not so many."""
    random = Random(f"questions {split} {seed}")
    pools = {
        language: [q for q in all_questions() if q.split == split and q.language == language]
        for language in ("en", "zh")
    }
    chinese = min(round(count * chinese_share), len(pools["zh"]))
    english = min(count - chinese, len(pools["en"]))
    drawn = random.sample(pools["en"], english) + random.sample(pools["zh"], chinese)
    random.shuffle(drawn)
    return drawn
