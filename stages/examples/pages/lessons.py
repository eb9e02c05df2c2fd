"""Lessons: sums worked out column by column, small functions, and games with words.

All operands are of the training split.
"""

from __future__ import annotations

from random import Random

from stages.examples.pages.page import Page, capitalized, coined_name, into_paragraphs
from stages.examples.pages.stories import story_sentences
from stages.tasks import arithmetic, code, format
from stages.tasks.arithmetic import Exercise, draw_exercise
from stages.tasks.chinese import comma, full_width
from stages.tasks.numerals import in_words
from stages.tasks.template import expand
from stages.tasks.words import PEOPLE_NAMES, THINGS

_INTRO = {
    "en": (
        "In the school of {c}, {p} [teaches sums to the youngest|learned to add and take "
        "away|keeps "
        "a notebook of sums], and every page of it [starts with the ones|goes from right "
        "to left|is "
        "kept with care].",
        "[Whoever keeps a shop in {c}|A trader from {c}] must [add quickly|be good at "
        "sums], and {p} "
        "[showed everybody how it is done|wrote down how to do it without mistakes].",
        "[This lesson from {c}|The {c} lesson] is about sums with two columns, [as {p} explains "
        "them|told by {p}|which {p} wrote for a friend].",
    ),
    "zh": (
        "在{c}的学校里,{p}[教最小的孩子算术|学会了加减法|有一本算术本子],[总是从个位开始|每一页都很整齐]。",
        "[{c}的店主|从{c}来的商人]必须算得快,{p}[写下了不出错的办法|告诉大家怎么算]。",
    ),
}
_ASIDE = {
    "en": (
        "[After that|Then] {p} [looked out of the window for a while|drank a cup of "
        "tea|wrote it all "
        "down again with a new pencil].",
        "[Nobody in {c} made a mistake that day|The others in {c} nodded|It took {p} only "
        "a moment].",
        "[It helps to say the words aloud|It is easy to forget what was carried|The tens "
        "come after "
        "the ones], as they say in {c}.",
        "{p} [likes this one most of all|had done it before|asked for a harder one].",
    ),
    "zh": (
        "{p}[喝了一杯茶|看了一会儿窗外|又写了一遍]。",
        "[{c}的人都点头|这一天没有人算错|大声说出来会更容易]。",
    ),
}
# How a worked exercise is told; {w} is the work, {r} the result, {f} the words the tasks end with.
_TOLD = {
    ("en", "+"): (
        "What is {a} + {b}? [For the answer|Column by column], {w}, {f}.",
        "To add {a} and {b}, [{p} says|we say|begin with the ones]: {w}, {f}.",
        "{p} had {a} {t} and [bought|found|was given] {b} more, so {w}, and [that made|now there "
        "were] {r} {t} in all.",
        "[Adding|When we add] {a} and {b}, {w}, so the sum is {r}.",
        "Compute {a} + {b}. {W}, {f}.",
    ),
    ("en", "-"): (
        "What is {a} - {b}? [For the answer|Column by column], {w}, {f}.",
        "To take {b} from {a}, [{p} says|we say|begin with the ones]: {w}, {f}.",
        "{p} had {a} {t} and [lost|sold|gave away] {b} of them, so {w}, and [that left|there "
        "remained] {r} {t}.",
        "[Taking|When we take] {b} from {a}, {w}, so the difference is {r}.",
        "Compute {a} - {b}. {W}, {f}.",
    ),
    ("zh", "+"): (
        "{a}加{b}等于多少?{w},{f}。",
        "计算{a}+{b}。{w},{f}。",
        "{p}有{a}个{t},又[买了|得到]{b}个,{w},一共有{r}个{t}。",
    ),
    ("zh", "-"): (
        "{a}减{b}等于多少?{w},{f}。",
        "计算{a}-{b}。{w},{f}。",
        "{p}有{a}个{t},[送出|卖了]{b}个,{w},还剩{r}个{t}。",
    ),
}
_TITLES = {
    "en": "[How to add and take away|Lessons from {c}|The notebook of {p}|A school day in {c}]",
    "zh": "[{c}的课堂|{p}的笔记本|怎样做加减法]",
}


def _wide(text: str, language: str) -> str:
    return full_width(text) if language == "zh" else text


def _say(random: Random, lines: tuple[str, ...] | str, language: str, **slots: object) -> str:
    line = lines if isinstance(lines, str) else random.choice(lines)
    return expand(random, _wide(line, language), **slots)


def told_exercise(random: Random, exercise: Exercise, language: str, person: str) -> str:
    """One exercise with its work and result, in one of several ways."""
    work = arithmetic.work(exercise, language)
    thing = random.choice(THINGS)
    return _say(
        random, _TOLD[language, exercise.operation], language,
        a=exercise.a, b=exercise.b, r=exercise.result, w=work, W=capitalized(work), p=person,
        t=thing["plural" if language == "en" else "zh"], f=arithmetic.final(exercise, language),
    )  # fmt: skip


def column_fact(random: Random, language: str) -> str:
    """One sentence of the addition table, both ways."""
    a, b = random.randint(0, 9), random.randint(0, 9)
    carry = random.random() < 0.4
    words = [in_words(number, language) for number in (a, b, a + b)]
    if language == "zh":
        plain = f"{words[0]}加{words[1]}得{words[2]}"
        back = f"{words[2]}减{words[1]}得{words[0]}"
        if carry:
            plain += f"{comma('zh')}{words[0]}加{words[1]}加一得{in_words(a + b + 1, 'zh')}"
        return f"{plain}{comma('zh')}{back}。"
    plain = f"{words[0]} and {words[1]} make {words[2]}"
    if carry:
        plain += f", {words[0]} and {words[1]} and one make {in_words(a + b + 1)}"
    back = f"{words[2]} minus {words[1]} is {words[0]}"
    return capitalized(f"{plain}{random.choice((', and ', ', so ', ', just as '))}{back}.")


_CODE = {
    "en": (
        "A function f(x) that {what} is written def f(x): return {e}.",
        "{p} wanted a function f(x) that {what}, and wrote def f(x): return {e}.",
        "Write a Python function f(x) that {what}. The answer of {p} was def f(x): return {e}.",
        "To get a function that {what}, [type|write] def f(x): return {e}.",
    ),
    "zh": (
        "写一个Python函数f(x),{what}。{p}的答案是 def f(x): return {e} 。",
        "{p}要一个函数f(x),{what},于是写下 def f(x): return {e} 。",
    ),
}
_CODE_ASIDE = {
    "en": (
        "[The word return gives the result back|A function begins with the word def|The "
        "name in the "
        "brackets is what goes in], as {p} [says|wrote in the {c} notes|explained].",
        "[Without the word return nothing comes back|The colon must not be forgotten|One line is "
        "enough for such a small thing], and {p} [knew it|tried it at once|agreed].",
        "[Programs like these|Such short functions] are [used every day|tested every "
        "night] at {c}.",
        "{p} [ran it twice to be sure|showed it to a friend in {c}|wrote a test for it first].",
    ),
    "zh": (
        "[函数用def开头|return把结果送回来|冒号不能忘],{p}[这样说|在{c}的笔记里写过]。",
        "{p}[运行了两次|把它给{c}的朋友看]。",
    ),
}


_GAMES = {
    "en": (
        "{p} was asked: {prompt} [The answer was|The reply came at once|So {p} wrote]: "
        "{solution}{dot}",
        "[In the next round|Then|Next] the card said: {prompt} {q} [wrote|answered|read out]: "
        "{solution}{dot}",
    ),
    "zh": (
        "{p}的题目是:{prompt}答案是:{solution}{dot}",
        "下一张卡片写着:{prompt}{q}写的是:{solution}{dot}",
    ),
}
_GAMES_ASIDE = {
    "en": (
        "{p} and {q} play this game in {c} [every week|on rainy days|when the shop is closed].",
        "[Everybody laughed|Nobody noticed the time], and {q} [took the next card|poured "
        "more tea].",
        "The rule in {c} is simple: [write what is asked and nothing else|no word too many|the "
        "quickest wins], [said {p}|as {q} knows].",
    ),
    "zh": (
        "{p}和{q}[每个星期|下雨天]在{c}玩这个游戏。",
        "规则很简单:[只写要求的内容|一个字也不能多],{q}说。",
    ),
}


def _sums(random: Random, language: str, slots: dict[str, str], largest: int) -> list[str]:
    exercise = draw_exercise(random, split="train", largest=largest)
    said = [told_exercise(random, exercise, language, slots["p"])]
    for _ in range(random.randint(1, 2)):
        said.append(column_fact(random, language))
    if random.random() < 0.3:
        said.append(_say(random, _ASIDE[language], language, **slots))
    return said


def _code(random: Random, language: str, slots: dict[str, str]) -> list[str]:
    shape = random.choice(code.SHAPES)
    a, b = code.draw_constants(random, "train")
    said = _say(
        random, _CODE[language], language, **slots, what=shape.said[language].format(a=a, b=b),
        e=shape.expression.format(a=a, b=b),
    )  # fmt: skip
    return [said, _say(random, _CODE_ASIDE[language], language, **slots)]


def _game(random: Random, language: str, slots: dict[str, str]) -> list[str]:
    problem = format.draw_problem(random, split="train", language=language)
    stop = "." if language == "en" else "。"
    said = _say(
        random, _GAMES[language], language, **slots, prompt=problem.prompt,
        solution=problem.solution, dot="" if problem.solution.endswith("!") else stop,
    )  # fmt: skip
    return [said, _say(random, _GAMES_ASIDE[language], language, **slots)]


def write_lessons(random: Random, language: str, largest: int) -> Page:
    """A story told between lessons: mostly sums, some code and word games."""
    people = [person[language] for person in random.sample(PEOPLE_NAMES, 3)]
    place = coined_name(random, language)
    lead = {"p": people[0], "c": place}
    sentences = [_say(random, _INTRO[language], language, **lead)]
    _, story = story_sentences(random, language, random.randint(9, 14))
    kinds = ["sums"] * random.randint(4, 6) + ["game"] * random.randint(1, 2)
    kinds += ["code"] * random.choice((0, 1, 1))
    random.shuffle(kinds)
    lessons = []
    for kind in kinds:
        p, q = random.sample(people, 2)
        slots = {"p": p, "q": q, "c": place}
        if kind == "sums":
            lessons.append(_sums(random, language, slots, largest))
        else:
            lessons.append((_code if kind == "code" else _game)(random, language, slots))
    stride = max(1, len(story) // len(lessons))
    for index, lesson in enumerate(lessons):
        new = [said for said in lesson if said not in sentences]
        sentences += new + story[index * stride : (index + 1) * stride]
    sentences += story[len(lessons) * stride :]
    title = _say(random, _TITLES[language], language, **lead)
    return Page(title, into_paragraphs(random, sentences, language), language, "lessons")
