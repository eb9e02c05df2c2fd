"""Sets of problems: references pass their verifiers, splits are disjoint, draws repeat."""

from dataclasses import replace

import pytest

from cluster.errors import UserError
from stages.tasks import code, format
from stages.tasks.generate import draw_problems
from stages.tasks.problem import read_problems, write_problems
from stages.tasks.split import eval_pairs
from stages.verify.constraint import verify_constraint
from stages.verify.number import verify_number

COUNTS = {"arithmetic": 150, "format": 100, "code": 100}


@pytest.fixture(scope="module")
def problems():
    return {split: draw_problems(5, split=split, counts=COUNTS) for split in ("train", "eval")}


def test_counts_ids_and_languages(problems):
    for split, drawn in problems.items():
        assert len(drawn) == 350 and len({p.id for p in drawn}) == 350
        assert len({p.prompt for p in drawn}) == 350
        assert {p.split for p in drawn} == {split}
        assert 0.15 < sum(p.language == "zh" for p in drawn) / 350 < 0.35


def test_references_pass_number_and_constraint_verifiers(problems):
    for problem in problems["train"] + problems["eval"]:
        verifier = problem.verifier
        if verifier["kind"] == "number":
            assert verify_number(verifier["answer"], problem.solution).passed, problem
            assert not verify_number(verifier["answer"], problem.solution + "1").passed
        elif verifier["kind"] == "constraint":
            assert verify_constraint(verifier["rules"], problem.solution).passed, problem
            assert not verify_constraint(verifier["rules"], "the cat sat").passed


def test_references_of_code_return_the_expected_values(problems):
    for problem in problems["train"] + problems["eval"]:
        if problem.task == "code":
            scope: dict = {}
            exec(problem.solution, scope)  # noqa: S102  (our own reference, from a fixed template)
            cases = problem.verifier["cases"]
            assert len(cases) == 5
            for case in cases:
                assert scope["f"](*case["arguments"]) == case["expected"]


def test_no_operands_of_the_evaluation_in_training(problems):
    train, held = ({p.operands for p in problems[split]} for split in ("train", "eval"))
    assert not train & held
    texts = [text for p in problems["train"] for text in (p.prompt, p.solution)]
    assert eval_pairs(texts, loose=True) == set()
    assert eval_pairs([p.prompt for p in problems["eval"]], loose=True)


def test_prompts_are_read_back(problems):
    for problem in problems["train"]:
        if problem.task == "format":
            kind, words, times, language = format.parse(problem.prompt)
            assert format.solve(kind, words, times, language)[0] == problem.solution
            assert format.key_of(words, times) == problem.operands
        elif problem.task == "code":
            shape, a, b, _ = code.parse(problem.prompt)
            assert code.source(shape, a, b) == problem.solution


def test_same_seed_same_problems_and_fewer_are_the_first_of_more(problems):
    assert draw_problems(5, split="train", counts=COUNTS) == problems["train"]
    fewer = draw_problems(5, split="train", counts={"arithmetic": 40})
    assert {p.prompt for p in fewer} <= {p.prompt for p in problems["train"]}
    other = draw_problems(6, split="train", counts=COUNTS)
    assert {p.prompt for p in other} != {p.prompt for p in problems["train"]}


def test_too_many_is_an_error():
    with pytest.raises(ValueError, match=r"found \d+ different code problems"):
        draw_problems(1, split="eval", counts={"code": 900}, chinese_share=0.0)


def test_written_problems_are_read_back(problems, tmp_path):
    mixed = problems["train"][:20] + problems["eval"][:10]
    assert write_problems(tmp_path / "problems.jsonl", mixed) == 30
    assert read_problems(tmp_path) == mixed
    assert read_problems(tmp_path / "problems.jsonl", "eval") == mixed[20:]


def test_bad_files_are_named(problems, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_problems(tmp_path)
    path = tmp_path / "problems.jsonl"
    write_problems(path, [replace(problems["train"][0], id="a")])
    path.write_text(path.read_text() + '{"id": "b"}\n')
    with pytest.raises(UserError, match="line 2 is not a problem"):
        read_problems(path)
