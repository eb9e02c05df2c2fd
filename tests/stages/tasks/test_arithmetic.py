"""Arithmetic: results against Python's, the columns against the results, prompts read back."""

from random import Random

import pytest

from stages.tasks.arithmetic import (
    PROMPTS,
    Exercise,
    columns,
    draw_exercise,
    draw_problem,
    exercise_in,
    prompt_for,
    worked,
)
from stages.tasks.split import split_of


def test_columns_put_together_give_the_result_for_every_pair():
    for a in range(100):
        for b in range(100):
            for operation in "+-":
                if operation == "-" and b > a:
                    continue
                exercise = Exercise(a, operation, b)
                steps = columns(exercise)
                ones = steps[0][1]
                if len(steps) == 1:
                    assert ones == exercise.result
                    continue
                assert 10 * steps[1][1] + ones % 10 == exercise.result
                assert all(
                    0 <= number < 20 for numbers, gives in steps for number in [*numbers, gives]
                )


@pytest.mark.parametrize(
    ("exercise", "language", "expected"),
    [
        (Exercise(47, "+", 38), "en",
         "seven and eight make fifteen then four and three and one make eight, answer 85"),
        (Exercise(92, "-", 35), "en",
         "twelve minus five is seven then eight minus three is five, answer 57"),
        (Exercise(7, "+", 8), "en", "seven and eight make fifteen, answer 15"),
        (Exercise(47, "+", 38), "zh", "七加八得十五\uff0c四加三加一得八\uff0c答案 85"),
    ],
)  # fmt: skip
def test_worked_solution(exercise, language, expected):
    assert worked(exercise, language) == expected


@pytest.mark.parametrize("split", ["train", "eval"])
def test_drawn_exercises_are_of_their_split_and_never_negative(split):
    random = Random(1)
    for _ in range(300):
        exercise = draw_exercise(random, split=split, largest=99)
        assert split_of((exercise.a, exercise.b)) == split
        assert exercise.result >= 0 and max(exercise.a, exercise.b) <= 99


def test_every_prompt_is_read_back():
    random = Random(2)
    seen = set()
    for _ in range(600):
        language = random.choice(("en", "zh"))
        exercise = draw_exercise(random, split="train", largest=99)
        prompt = prompt_for(random, exercise, language)
        assert exercise_in(prompt) == (exercise, language)
        seen.add((language, exercise.operation))
    assert seen == set(PROMPTS)
    assert exercise_in("What is the weather?") is None


def test_problem_answer_is_the_result():
    for seed in range(50):
        problem = draw_problem(Random(seed), split="eval", language="en")
        exercise, _ = exercise_in(problem.prompt)
        assert problem.verifier == {"kind": "number", "answer": str(exercise.result)}
        assert problem.solution.endswith(f"answer {exercise.result}")
