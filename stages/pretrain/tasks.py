"""Tasks in the loop: multiple-choice questions, answered by what the model finds likeliest.

A base model does not yet do as it is told, so it is not made to write: a choice's log-likelihood
behind the question is a forward pass, at any parallel shape. What is counted is
lm-evaluation-harness's `acc`, of the same prompt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist

from cluster.errors import UserError
from model.tokenizer import Tokenizer
from stages.pretrain import FACTS, Config
from stages.tasks.multiple_choice import draw_items
from stages.text.token_shards import IGNORED_LABEL, TokenBatch
from stages.tune.decoder import Rows
from stages.tune.mesh import Mesh
from stages.tune.passes import Passes

Question = dict[str, Any]
"""{"prompt": token ids, "choices": [token ids, ...], "answer": index of the true one}."""


class Run(Protocol):
    """What a task needs of a run."""

    config: Config
    device: torch.device
    mesh: Mesh
    passes: Passes

    def tensors(self, batch: TokenBatch) -> Rows: ...

    def beat(self, doing: str, *, shape: Hashable = None) -> None: ...


def encoded_tasks(config: Config, tokenizer: Path, seed: int) -> dict[str, list[Question]]:
    """Task name -> its questions as tokens, on the driver's side.

    A UserError where a file is none of questions, naming the line.
    """
    if not config.tasks:
        return {}
    encoder = Tokenizer.load(tokenizer)
    tasks = {}
    for task in config.tasks:
        items = draw_items(seed, config.task_questions) if task == FACTS else read_items(Path(task))
        name = task if task == FACTS else Path(task).stem
        if name in tasks:
            raise UserError(f"tasks: two of {config.tasks} are called {name!r}: rename one of them")
        tasks[name] = [_encoded(item, encoder) for item in items[: config.task_questions]]
        _check_choices(name, tasks[name], config.sequence_length)
    return tasks


def read_items(file: Path) -> list[dict[str, Any]]:
    """The questions of a JSONL file."""
    if not file.is_file():
        raise UserError(
            f"tasks: {file} does not exist; expected {FACTS!r} or a JSONL file of questions"
        )
    items = []
    for number, raw in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            item = json.loads(raw.decode("utf-8"))
            answer, choices = int(item["answer"]), [str(choice) for choice in item["choices"]]
            if not 0 <= answer < len(choices) or len(choices) < 2 or not all(choices):
                raise ValueError(f"answer {answer} of {choices}")
            items.append({"question": str(item["question"]), "choices": choices, "answer": answer})
        except UnicodeDecodeError as error:
            raise UserError(
                f"tasks: {file} line {number} is not UTF-8 ({error.reason} at its byte "
                f"{error.start + 1}): save the file as UTF-8"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'tasks: {file} line {number} is not a question ({error!r}); expected {{"question":'
                ' text, "choices": [texts], "answer": index of the true one}'
            ) from error
    if not items:
        raise UserError(f"tasks: {file} holds no questions")
    return items


def _encoded(item: Mapping[str, Any], tokenizer: Tokenizer) -> Question:
    """As the harness splits: text is encoded whole, and what the prompt took is cut off."""
    prompt = f"Question: {item['question']}\nAnswer:"
    ids = tokenizer.encode(prompt)
    whole = [tokenizer.encode(f"{prompt} {choice}") for choice in item["choices"]]
    return {
        "prompt": ids, "choices": [text[len(ids) :] for text in whole], "answer": item["answer"]
    }  # fmt: skip


def _check_choices(name: str, questions: Sequence[Question], length: int) -> None:
    """A choice that no row holds whole would be scored by its end alone: cheaper than it is."""
    for number, question in enumerate(questions, start=1):
        longest = max(len(choice) for choice in question["choices"])
        if longest > length:
            raise UserError(
                f"tasks: question {number} of {name} has a choice of {longest} tokens, expected "
                f"{length} at most (sequence_length), or it cannot be compared with the others: "
                "leave the question out, or raise sequence_length"
            )


def accuracies(run: Run, tasks: Mapping[str, Sequence[Question]]) -> dict[str, float]:
    """`accuracy/TASK`: the share of questions whose true choice has the highest likelihood."""
    found = {}
    for name, questions in tasks.items():
        nats_qc = _nats(run, questions)
        answers = torch.tensor([question["answer"] for question in questions])
        right = nats_qc.argmin(1) == answers
        found[f"accuracy/{name}"] = float(right.double().mean())
    return found


def _nats(run: Run, questions: Sequence[Question]) -> torch.Tensor:
    """Negative log-likelihood of every choice, [questions, choices], float64, on every rank.

    Questions are dealt out to the data groups, which all take as many passes (ZeRO 3 gathers
    weights in them): one without a question left repeats the last, and counts nothing.
    """
    most = max(len(question["choices"]) for question in questions)
    width = _width(run, questions)
    nats_qc = torch.zeros(len(questions), most, dtype=torch.float64)
    for begin in range(0, len(questions), run.mesh.data):
        run.beat("asking questions", shape=width)
        number = begin + run.mesh.data_rank
        question = questions[min(number, len(questions) - 1)]
        for choice in range(most):
            ids = question["choices"][min(choice, len(question["choices"]) - 1)]
            nats = run.passes.loss(run.tensors(_row(question["prompt"], ids, width)))
            if number < len(questions):
                known = choice < len(question["choices"])
                nats_qc[number, choice] = nats if known else math.inf
    total = nats_qc.to(run.device)
    dist.all_reduce(total)  # parts of tensor and sequence ranks, zeros of the other groups
    return total.cpu()


def _width(run: Run, questions: Sequence[Question]) -> int:
    """Positions in a row: what the longest text takes, which sequence parallelism can divide."""
    longest = max(
        len(question["prompt"]) + len(choice) - 1
        for question in questions
        for choice in question["choices"]
    )
    share = run.mesh.sequence
    return min(run.config.sequence_length, -(-longest // share) * share)


def _row(prompt: Sequence[int], choice: Sequence[int], width: int) -> TokenBatch:
    """One row that predicts the choice alone; what is too long loses its beginning."""
    ids = [*prompt, *choice][-width - 1 :]
    scored = min(max(1, len(choice)), len(ids) - 1)
    inputs, labels = np.zeros((1, width), np.int64), np.full((1, width), IGNORED_LABEL, np.int64)
    inputs[0, : len(ids) - 1] = ids[:-1]
    labels[0, len(ids) - 1 - scored : len(ids) - 1] = ids[-scored:]
    return TokenBatch(inputs, labels, np.zeros((1, width), np.int64))
