"""The reference engine: our own Transformer in float32, decoding a changing batch over a KV cache.

It serves a checkpoint without any conversion, and says what other engines should answer. Requests
join and leave between steps; the cache is packed anew then, so that no row keeps another's room.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from model import pretrained
from model.attention import KVCache
from model.config import ModelConfig
from serve.engine import Delta, FinishReason, Request, Stats


@dataclass(eq=False)
class _Row:
    """One running request: `cached` tokens are in its row of the cache, `last` is not yet."""

    request: Request
    random: torch.Generator
    cached: int = 0
    last: int = -1
    generated: int = 0

    @property
    def remaining(self) -> int:
        return self.request.max_tokens - self.generated


@dataclass
class _Batch:
    """Rows and their cache, in the same order."""

    rows: list[_Row] = field(default_factory=list)
    cache: KVCache | None = None


class TorchEngine:
    """`serve.engine.Engine` over `model.transformer.Transformer`; the rest wait for a free row."""

    name = "torch"

    def __init__(self, folder: Path, *, max_sequences: int = 16, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._model = pretrained.load(folder)
        self.context_tokens = self._model.config.max_position_embeddings
        self._max_sequences = max_sequences
        self._waiting: deque[Request] = deque()
        self._batch = _Batch()
        self._generated = 0

    def add(self, request: Request) -> None:
        """Queue a request."""
        if request.id in {held.id for held in self._held()}:
            raise ValueError(f"request id {request.id!r} is in use")
        self._waiting.append(request)

    @torch.inference_mode()
    def step(self) -> list[Delta]:
        """One token for every running request, and the first one for those that join."""
        deltas = []
        batch = self._batch
        if batch.rows:
            last = torch.tensor([[row.last] for row in batch.rows])
            logits_rv = self._model(last, cache=batch.cache)[:, -1]
            for row, logits_v in zip(batch.rows, logits_rv, strict=True):
                row.cached += 1
                deltas.append(self._choose(row, logits_v))
        joined = self._join()
        deltas += [self._choose(new.rows[0], logits_v) for new, logits_v in joined]
        done = {delta.request_id for delta in deltas if delta.finish_reason is not None}
        if joined or done:
            parts = [batch, *(new for new, _ in joined)]
            self._batch = _pack(self._model.config, parts, done)
        self._generated += len(deltas)
        return deltas

    @torch.inference_mode()
    def abort(self, request_id: str) -> None:
        """Forget a request at once."""
        self._waiting = deque(held for held in self._waiting if held.id != request_id)
        if any(row.request.id == request_id for row in self._batch.rows):
            self._batch = _pack(self._model.config, [self._batch], {request_id})

    def has_work(self) -> bool:
        """Whether a request runs or waits."""
        return bool(self._waiting or self._batch.rows)

    def stats(self) -> Stats:
        """The rows' cached tokens stand against full contexts in every row."""
        cached = sum(row.cached for row in self._batch.rows)
        room = self._max_sequences * self.context_tokens
        return Stats(len(self._held()), cached / room, self._generated)

    def _held(self) -> list[Request]:
        return [*self._waiting, *(row.request for row in self._batch.rows)]

    def _join(self) -> list[tuple[_Batch, Tensor]]:
        """Read the prompts of requests that find a row: each a batch of one, with its logits."""
        joined: list[tuple[_Batch, Tensor]] = []
        while self._waiting and len(self._batch.rows) + len(joined) < self._max_sequences:
            request = self._waiting.popleft()
            random = torch.Generator()
            if request.seed is None:
                random.seed()
            else:
                random.manual_seed(request.seed)
            prompt = torch.tensor([request.prompt_ids])
            row = _Row(request, random, cached=prompt.shape[1])
            starts = torch.zeros(1, dtype=torch.long)
            cache = KVCache(self._model.config, row.cached, starts, torch.float32)
            logits_v = self._model(prompt, cache=cache)[0, -1]
            joined.append((_Batch([row], cache), logits_v))
        return joined

    def _choose(self, row: _Row, logits_v: Tensor) -> Delta:
        """Pick the row's next token and say so."""
        request = row.request
        row.last = sample(logits_v, request.temperature, request.top_p, row.random)
        row.generated += 1
        logprob = float(torch.log_softmax(logits_v, -1)[row.last])
        finish: FinishReason | None = None
        if row.last in request.stop_ids:
            finish = "stop"
        elif row.remaining == 0:
            finish = "length"
        return Delta(request.id, (row.last,), (logprob,), finish)


def sample(logits_v: Tensor, temperature: float, top_p: float, random: torch.Generator) -> int:
    """A token from softmax(logits / temperature), cut to the smallest set of mass `top_p`."""
    if temperature == 0:
        return int(logits_v.argmax())
    probabilities, order = torch.softmax(logits_v.double() / temperature, -1).sort(descending=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities[before >= top_p] = 0.0
    return int(order[torch.multinomial(probabilities, 1, generator=random)])


def _pack(config: ModelConfig, parts: list[_Batch], leave: set[str]) -> _Batch:
    """One batch of the rows that stay, right-aligned, with room for all they may still say."""
    sources = [
        (row, part.cache, number)
        for part in parts
        for number, row in enumerate(part.rows)
        if row.request.id not in leave
    ]
    if not sources:
        return _Batch()
    rows = [row for row, _, _ in sources]
    length = max(row.cached for row in rows)
    capacity = length + max(row.remaining for row in rows)
    starts = torch.tensor([length - row.cached for row in rows])
    packed = KVCache(config, capacity, starts, torch.float32)
    packed.length = length
    for place, (row, cache, number) in enumerate(sources):
        assert cache is not None
        for old, new in zip(cache.layers, packed.layers, strict=True):
            for before, after in zip(old, new, strict=True):
                tail = before[number, :, cache.length - row.cached : cache.length]
                after[place, :, : length - row.cached] = 0.0
                after[place, :, length - row.cached : length] = tail
    return _Batch(rows, packed)
