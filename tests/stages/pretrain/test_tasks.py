"""Tasks in the loop: what lm-evaluation-harness counts for the same weights; bad files."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from model.config import ModelConfig
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from stages.pretrain import Config, loop
from stages.pretrain.tasks import encoded_tasks, read_items
from stages.tasks.multiple_choice import draw_items
from stages.text.token_shards import TokenWriter
from stages.tune.checkpoint import find_checkpoints

ITEMS = draw_items(seed=3, count=40)


def job_of(folder: Path, tokenizer: Tokenizer, tasks: list[str]) -> dict[str, Any]:
    """A short run on sentences that answer the questions."""
    for split in ("train", "heldout"):
        writer = TokenWriter(folder / split, tokenizer.vocabulary_size, tokenizer.end_of_text_id)
        for number, item in enumerate(ITEMS):
            writer.add(str(number), tokenizer.encode(item["sentences"][item["answer"]]))
        writer.close()
    tokenizer.save(folder / "tokenizer")
    config = Config.model_validate(
        {"tokens": "t", "steps": 24, "warmup_steps": 2, "batch_tokens": 256, "sequence_length": 64,
         "learning_rate": 1e-2, "evaluate_every": 12, "tasks": tasks, "task_questions": 40}
    )  # fmt: skip
    shape = ModelConfig(
        vocab_size=tokenizer.vocabulary_size, hidden_size=32, intermediate_size=48,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    return {
        "config": config.model_dump(mode="json"), "shape": shape.model_dump(), "seed": 5,
        "tokens": str(folder / "train"), "heldout": str(folder / "heldout"),
        "tasks": encoded_tasks(config, folder / "tokenizer", seed=3),
        "scratch": str(folder / "run"),
    }  # fmt: skip


def test_accuracy_is_what_the_evaluation_harness_counts(
    tmp_path: Path, one_rank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.evaluate import harness

    said: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "report", lambda metrics, *_: said.append(metrics))
    tokenizer = Tokenizer.train((s for item in ITEMS for s in item["sentences"]), 400)
    harness.write_task(tmp_path / "harness", ITEMS, chat=False)
    job = job_of(tmp_path, tokenizer, ["facts"])
    loop.train(job)
    model = Transformer(ModelConfig.model_validate(job["shape"])).eval()
    checkpoint = find_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    model.load_state_dict(checkpoint.weights(), strict=False)
    right = harness.facts_accuracy(model, tokenizer, tmp_path / "harness", 64, chat=False)
    assert said[-1]["accuracy/facts"] == pytest.approx(sum(right) / len(right))
    assert 0.1 < said[-1]["accuracy/facts"] < 0.95
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "accuracy/facts" in line] == [11, 23]


def test_a_file_of_questions_is_a_task_by_its_name(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["Is water wet? yes no"], 300)
    tokenizer.save(tmp_path)
    items = [{"question": "Is water wet?", "choices": ["yes", "no"], "answer": 0}] * 3
    (tmp_path / "arc.jsonl").write_text("\n".join(map(json.dumps, items)))
    config = Config(tokens="t", steps=30, tasks=[str(tmp_path / "arc.jsonl")], task_questions=2)
    tasks = encoded_tasks(config, tmp_path, seed=0)
    assert list(tasks) == ["arc"] and len(tasks["arc"]) == 2
    question = tasks["arc"][0]
    assert tokenizer.decode(question["prompt"]) == "Question: Is water wet?\nAnswer:"
    assert [tokenizer.decode(ids) for ids in question["choices"]] == [" yes", " no"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"question": "q", "choices": ["a"], "answer": 0}',
            "line 1 is not a question .*0 of",
        ),
        ('{"question": "q", "choices": ["a", "b"], "answer": 2}', "line 1 is not a question"),
        ('{"question": "q"}', r"line 1 is not a question \(KeyError"),
        ("what?", "line 1 is not a question"),
        ("\n", "holds no questions"),
    ],
)
def test_what_is_no_question_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.jsonl").write_text(text)
    with pytest.raises(UserError, match=said):
        read_items(tmp_path / "mine.jsonl")


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    item = {"question": "one\u2028two\u0085three", "choices": ["yes", "no"], "answer": 0}
    text = json.dumps(item, ensure_ascii=False) + "\r\n"
    (tmp_path / "mine.jsonl").write_bytes(2 * text.encode())
    assert read_items(tmp_path / "mine.jsonl") == [item, item]


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    lines = ['{"question": "q", "choices": ["a", "b"], "answer": 0}', '{"question": "café"}']
    (tmp_path / "mine.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(UserError, match=r"mine\.jsonl line 2 is not UTF-8 \(.* byte 18\): save"):
        read_items(tmp_path / "mine.jsonl")


@pytest.mark.parametrize("length", [8, 9])
def test_a_choice_longer_than_a_row_is_refused(tmp_path: Path, length: int) -> None:
    tokenizer = Tokenizer.train(["yes no"], 260)
    tokenizer.save(tmp_path)
    item = {"question": "q", "choices": ["a", "b" * 8], "answer": 0}  # a space, and its letters
    (tmp_path / "mine.jsonl").write_text(json.dumps(item))
    fields = {"sequence_length": length, "batch_tokens": 8 * length}
    config = Config(tokens="t", steps=30, tasks=[str(tmp_path / "mine.jsonl")], **fields)
    said = "question 1 of mine has a choice of 9 tokens, expected 8 at most"
    with pytest.raises(UserError, match=said) if length == 8 else nullcontext():
        encoded_tasks(config, tmp_path, seed=0)


def test_a_missing_file_is_named_before_any_worker_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl does not exist; expected 'facts' or"):
        read_items(tmp_path / "nowhere.jsonl")
