"""Rollouts: completions sampled from a policy, with what an objective needs to know of them.

Each sample has a seed of its own, made of (seed, prompt's name, sample's number), so what is
sampled does not depend on how prompts are spread over actors (up to rounding in another batch).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model.generate import generate
from model.tokenizer import Tokenizer
from model.transformer import Transformer

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. Log-probabilities are those of temperature 1 in any case."""

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class Rollout:
    """One completion of one prompt.

    `logprobs` has one entry per completion token, a stop token included, under the policy that
    sampled it; `finished` is False where the length ran out; `text` is without the stop token.
    """

    prompt: str
    """The prompt's name; the samples of one prompt form a group."""
    sample: int
    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]
    finished: bool
    text: str

    def as_record(self, **more: Any) -> dict[str, Any]:
        """What the rollout log keeps: everything but the token ids of the prompt."""
        record = asdict(self)
        del record["prompt_ids"]
        record["logprobs"] = [round(logprob, 6) for logprob in self.logprobs]
        return {**record, **more}


def sample(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Mapping[str, Messages],
    *,
    samples: int,
    sampling: Sampling,
    seed: int,
    batch_rows: int = 512,
) -> list[Rollout]:
    """`samples` rollouts of each prompt (name -> messages), prompt by prompt.

    Sorted by length into batches of at most `batch_rows`, so that little is padded.
    """
    rows = [
        (name, number, tokenizer.encode_chat(messages, add_generation_prompt=True)[0])
        for name, messages in prompts.items()
        for number in range(samples)
    ]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][2]))
    rollouts: dict[int, Rollout] = {}
    for begin in range(0, len(order), batch_rows):
        batch = order[begin : begin + batch_rows]
        completions = generate(
            model,
            [rows[index][2] for index in batch],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            stop_ids=tokenizer.stop_ids,
            seed=[row_seed(seed, *rows[index][:2]) for index in batch],
        )
        for index, completion in zip(batch, completions, strict=True):
            name, number, prompt_ids = rows[index]
            ids = completion.token_ids
            text = tokenizer.decode(ids[:-1] if completion.finished else ids)
            rollouts[index] = Rollout(
                name, number, prompt_ids, ids, completion.logprobs, completion.finished, text
            )
    return [rollouts[index] for index in range(len(rows))]


def row_seed(seed: int, name: str, number: int) -> int:
    """The seed of one sample, 63 bits."""
    digest = hashlib.blake2b(f"{seed}/{name}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
