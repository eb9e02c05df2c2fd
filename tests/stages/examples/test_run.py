"""The examples stage as a whole: layouts, repeatability, no operands of the evaluation."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from stages.examples import Config
from stages.examples.run import run
from stages.tasks.arithmetic import exercise_in
from stages.tasks.preference import true_preference
from stages.tasks.problem import read_problems
from stages.tasks.split import eval_pairs

SMALL = {
    "crawl": {"pages": 150, "files": 2},
    "problems": {"train_problems": 300, "eval_problems": 80},
    "conversations": {"count": 500},
    "preferences": {"count": 300},
}


def make(what: str, context, folder: Path, inputs=None, **knobs) -> tuple[Path, dict]:
    out = folder / what
    out.mkdir(parents=True)
    config = Config(what=what, **{**SMALL[what], **knobs})
    return out, run(config, inputs or {}, replace(context, out=out))


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("what", sorted(SMALL))
def test_same_seed_same_bytes_another_seed_others(what, context, tmp_path):
    first, metrics = make(what, context, tmp_path / "a")
    again, _ = make(what, context, tmp_path / "b")
    other, _ = make(what, replace(context, seed=18), tmp_path / "c")
    assert digests(first) == digests(again)
    assert not set(digests(first).values()) & set(digests(other).values())
    assert metrics["bytes"] > 0


def test_problems_layout(context, tmp_path):
    out, metrics = make("problems", context, tmp_path)
    assert (len(read_problems(out, "train")), len(read_problems(out, "eval"))) == (300, 80)
    assert metrics["train"] == 300 and metrics["eval"] == 80
    assert set(rows(out / "questions.jsonl")[0]) == {"prompt", "answer", "sentence", "language"}
    assert len(rows(out / "multiple_choice.jsonl")) == metrics["multiple_choice"]


@pytest.fixture
def evaluation(context, tmp_path, as_artifact):
    out, _ = make("problems", context, tmp_path / "parent")
    return as_artifact(out, "examples"), read_problems(out, "eval")


def test_conversations_layout_and_separation(context, tmp_path, evaluation):
    artifact, problems = evaluation
    out, metrics = make("conversations", context, tmp_path, {"problems": artifact})
    train, held = rows(out / "conversations.jsonl"), rows(out / "heldout.jsonl")
    assert len(train) + len(held) == 500 and len(held) == metrics["heldout"] > 20
    for row in train + held:
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
        assert row["messages"][1]["content"].strip()
    prompts, held_prompts = ({r["messages"][0]["content"] for r in side} for side in (train, held))
    assert not prompts & held_prompts
    assert not (prompts | held_prompts) & {p.prompt for p in problems}
    texts = [m["content"] for row in train + held for m in row["messages"]]
    assert eval_pairs(texts, loose=True) == set()
    assert {row["task"] for row in train} == {"facts", "small_talk", "arithmetic", "format", "code"}


def test_requested_share_is_the_share_of_answers_in_the_requested_form(context, tmp_path):
    for share in (0.0, 1.0):
        out, _ = make(
            "conversations", context, tmp_path / str(share), requested_share=share,
            mixture={"tasks": 1.0}, task_shares={"arithmetic": 1.0}, count=200,
        )  # fmt: skip
        asked, right = 0, 0
        for row in rows(out / "conversations.jsonl"):
            exercise, _ = exercise_in(row["messages"][0]["content"])
            answer = row["messages"][1]["content"]
            asked += 1
            right += answer.endswith((f"answer {exercise.result}", f"答案 {exercise.result}"))
        assert right == (asked if share else 0)


def test_preferences_layout_separation_and_truth(context, tmp_path, evaluation):
    artifact, problems = evaluation
    out, _ = make("preferences", context, tmp_path, {"problems": artifact})
    pairs = rows(out / "preferences.jsonl") + rows(out / "heldout.jsonl")
    assert len(pairs) == 300
    agree = 0
    for pair in pairs:
        prompt = pair["prompt"][0]["content"]
        chosen, rejected = (pair[side][0]["content"] for side in ("chosen", "rejected"))
        assert chosen != rejected
        agree += true_preference(prompt, chosen) >= true_preference(prompt, rejected)
    assert 0.75 < agree / len(pairs) < 0.995  # a noisy reader, not a perfect one
    texts = [p[side][0]["content"] for p in pairs for side in ("prompt", "chosen", "rejected")]
    assert eval_pairs(texts, loose=True) == set()
    assert not {p["prompt"][0]["content"] for p in pairs} & {p.prompt for p in problems}
