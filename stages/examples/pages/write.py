"""Draws a good page of any topic, by the topics' shares."""

from __future__ import annotations

from random import Random

from stages.examples.pages.articles import write_article
from stages.examples.pages.lessons import write_lessons
from stages.examples.pages.page import Page
from stages.examples.pages.stories import write_story
from stages.examples.pages.talks import write_dialogue, write_questions

TOPICS = {"article": 0.16, "story": 0.06, "questions": 0.09, "dialogue": 0.07, "lessons": 0.62}
"""Shares of pages."""


def write_page(random: Random, language: str, largest: int) -> Page:
    """A good page; `largest` bounds its arithmetic."""
    (topic,) = random.choices(list(TOPICS), list(TOPICS.values()))
    if topic == "article":
        return write_article(random, language)
    if topic == "story":
        return write_story(random, language)
    if topic == "questions":
        return write_questions(random, language)
    if topic == "dialogue":
        return write_dialogue(random, language, largest)
    return write_lessons(random, language, largest)
