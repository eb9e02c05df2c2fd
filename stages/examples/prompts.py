"""What the conversations and preferences are about, kept apart from the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from stages.examples import Config
from stages.tasks.generate import draw_problem
from stages.tasks.problem import Problem
from stages.tasks.questions import Question, all_questions
from stages.tasks.small_talk import Talk, draw_talk

Subject = Question | Talk | Problem


class Evaluation:
    """The evaluation's prompts and operands, which nothing drawn for training may repeat."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self._prompts = {problem.prompt for problem in problems}
        self._operands = {problem.operands for problem in problems}

    def holds(self, problem: Problem) -> bool:
        """Whether the problem is in the evaluation, or works on operands that are."""
        return (
            problem.split == "eval"
            or problem.prompt in self._prompts
            or problem.operands in self._operands
        )


class PromptSource:
    """Draws what to talk about: training questions, small talk, training problems."""

    def __init__(self, config: Config, random: Random, evaluation: Evaluation) -> None:
        self._config, self._random, self._evaluation = config, random, evaluation
        self._questions = {
            language: [q for q in all_questions() if q.language == language and q.split == "train"]
            for language in ("en", "zh")
        }

    def draw(self) -> Subject:
        """The next subject, by the config's shares."""
        random, config = self._random, self._config
        (topic,) = random.choices(list(config.mixture), list(config.mixture.values()))
        language = "zh" if random.random() < config.chinese_share else "en"
        if topic == "facts":
            return random.choice(self._questions[language])
        if topic == "small_talk":
            return draw_talk(random, language)
        (task,) = random.choices(list(config.task_shares), list(config.task_shares.values()))
        while True:
            problem = draw_problem(
                random, task, split="train", language=language, largest=config.largest_number
            )
            if not self._evaluation.holds(problem):
                return problem

    @staticmethod
    def task_of(subject: Subject) -> str:
        """ "facts", "small_talk" or the problem's task."""
        if isinstance(subject, Question):
            return "facts"
        return "small_talk" if isinstance(subject, Talk) else subject.task
