"""The true preference: better answers score higher, and pairs follow Bradley-Terry."""

import math
from random import Random

import pytest

from stages.tasks.generate import draw_problems
from stages.tasks.preference import candidates, draw_pair, true_preference
from stages.tasks.questions import draw_questions
from stages.tasks.responses import fact_response, task_response
from stages.tasks.small_talk import draw_talk, talk_of


@pytest.mark.parametrize("right", [True, False])
def test_the_full_sentence_is_the_best_style_for_a_fact(right):
    random = Random(1)
    for question in draw_questions(1, 60, split="train", chinese_share=0.5):
        full = true_preference(
            question.prompt, fact_response(random, question, "full", right=right)
        )
        for style in ("terse", "filler", "rambling"):
            other = fact_response(random, question, style, right=right)
            assert full > true_preference(question.prompt, other), (question.prompt, other)


def test_right_beats_wrong_in_every_style():
    random = Random(2)
    for question in draw_questions(2, 60, split="train", chinese_share=0.5):
        for style in ("full", "terse", "filler"):
            right, wrong = (
                true_preference(question.prompt, fact_response(random, question, style, right=r))
                for r in (True, False)
            )
            assert right > wrong


def test_courtesy_beats_terseness():
    random = Random(3)
    for _ in range(60):
        talk = draw_talk(random, random.choice(("en", "zh")))
        assert talk_of(talk.prompt) == talk
        assert true_preference(talk.prompt, talk.polite) > true_preference(talk.prompt, talk.terse)


def test_the_requested_answer_is_the_best_for_a_task():
    random = Random(4)
    counts = {"arithmetic": 60, "format": 60, "code": 60}
    for problem in draw_problems(4, split="train", counts=counts):
        best = true_preference(problem.prompt, problem.solution)
        for style in ("bare", "beside", "wrong"):
            other = task_response(random, problem, style)
            assert best > true_preference(problem.prompt, other), (problem.prompt, other)


def test_nothing_rambling_and_repeating_are_bad():
    question = draw_questions(1, 1, split="train", chinese_share=0.0)[0]
    best = true_preference(question.prompt, question.sentence)
    assert true_preference(question.prompt, "  ") == -4.0
    assert true_preference(question.prompt, question.sentence + " yes" * 30) < best - 1
    assert true_preference(question.prompt, " ".join([question.sentence] * 4)) < best


def test_pairs_are_drawn_by_bradley_terry():
    random = Random(5)
    question = draw_questions(1, 1, split="train", chinese_share=0.0)[0]
    full, filler = question.sentence, "Well, let me think, " + question.sentence
    gap = true_preference(question.prompt, full) - true_preference(question.prompt, filler)
    draws = 4000
    wins = sum(
        draw_pair(random, question.prompt, [full, filler], 1.5).chosen == full for _ in range(draws)
    )
    expected = 1 / (1 + math.exp(-1.5 * gap))
    assert wins / draws == pytest.approx(expected, abs=4 * math.sqrt(0.25 / draws))


def test_candidates_differ():
    random = Random(6)
    subjects = [*draw_questions(6, 5, split="train"), draw_talk(random, "en")]
    for subject in subjects:
        assert len(set(candidates(random, subject))) >= 3
