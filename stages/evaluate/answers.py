"""Asking a model: prompts in the form it knows, several sampled answers to each.

A model that never saw chat turns is asked by a few worked examples in plain text, as base models
are; every other by the chat template.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.generate import generate
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from stages.tasks.problem import Problem

BATCH = 256


def plain_prompt(question: str, examples: Sequence[tuple[str, str]] = ()) -> str:
    """A question and its answer for each example, then the question with its answer left open."""
    shots = [f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in examples]
    return "".join(shots) + f"Question: {question}\nAnswer:"


def worked_examples(
    problems: Sequence[Problem], task: str, language: str, count: int
) -> list[tuple[str, str]]:
    """`count` solved training problems of that task, its language first, then the shortest."""
    same = [problem for problem in problems if problem.task == task and problem.split == "train"]
    same.sort(key=lambda p: (p.language != language, len(p.prompt) + len(p.solution), p.id))
    return [(problem.prompt, problem.solution) for problem in same[:count]]


def encode_question(
    tokenizer: Tokenizer, question: str, chat: bool, examples: Sequence[tuple[str, str]] = ()
) -> list[int]:
    """Token ids of a prompt, by the chat template or as plain text."""
    if chat:
        message = {"role": "user", "content": question}
        return tokenizer.encode_chat([message], add_generation_prompt=True)[0]
    return tokenizer.encode(plain_prompt(question, examples))


def sample_answers(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    chat: bool,
    batch: int = BATCH,
) -> list[list[str]]:
    """`samples` answers to each prompt, in order.

    A sample's randomness is of (seed, prompt, sample): `batch` does not change it, and the first
    answers are the same however many are drawn. Prompts of like length share a batch.
    """
    room = model.config.max_position_embeddings - max_new_tokens
    rows = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(samples)]
    rows.sort(key=lambda row: len(prompts[row[0]]))
    answers: list[list[str]] = [[""] * samples for _ in prompts]
    for begin in range(0, len(rows), batch):
        part = rows[begin : begin + batch]
        completions = generate(
            model,
            [list(prompts[prompt])[-room:] for prompt, _ in part],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop_ids=tokenizer.stop_ids,
            seed=[(seed * 1_000_003 + prompt) * 1009 + sample for prompt, sample in part],
        )
        for (prompt, sample), completion in zip(part, completions, strict=True):
            text = tokenizer.decode(completion.token_ids)
            answers[prompt][sample] = text if chat else text.split("\nQuestion:")[0]
    return [[answer.strip() for answer in row] for row in answers]
