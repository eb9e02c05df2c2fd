"""From a checked request to pieces of text: prompts to ids, choices run together, stop strings.

A job is one API request; each of its choices (prompts times `n`) is one request to the engine. All
choices decode together, and their pieces come as they are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

from serve.engine import EngineLoop, FinishReason, Request
from serve.model_folder import ServedModel
from serve.openai_api import MAX_CHOICES, ApiError, ChatRequest, CompletionRequest, Sampling
from serve.text_stream import TextStream


@dataclass(frozen=True)
class Piece:
    """What one choice gained: text that is certain, and the tokens behind it with logprobs."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason | None = None


@dataclass
class Choice:
    """One choice, whole."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None


@dataclass
class Job:
    """One API request. Prompts count once in the usage however many choices they have."""

    id: str
    requests: list[Request]
    stop: list[str]
    prompt_tokens: int
    stream: bool
    usage_wanted: bool
    completion_tokens: int = 0
    created: int = field(default_factory=lambda: int(time.time()))


class Completer:
    """Runs jobs on one engine. `capacity` choices at most at a time; beyond that, 429."""

    def __init__(self, model: ServedModel, loop: EngineLoop, capacity: int) -> None:
        self.model = model
        self._loop = loop
        self._capacity = capacity
        self._reserved = 0

    @contextlib.contextmanager
    def reserve(self, choices: int) -> Iterator[None]:
        """Hold room for a job's choices; ApiError 429 when there is none."""
        if self._reserved and self._reserved + choices > self._capacity:
            message = f"overloaded: {self._reserved} completions are running; try again soon"
            raise ApiError(429, message, kind="overloaded_error", code="overloaded")
        self._reserved += choices
        try:
            yield
        finally:
            self._reserved -= choices

    def completion_job(self, wanted: CompletionRequest) -> Job:
        """Text or token ids to a job."""
        prompts = []
        for prompt in wanted.prompts():
            ids = self.model.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
            if any(not 0 <= number < self.model.vocabulary_size for number in ids):
                bound = self.model.vocabulary_size - 1
                raise ApiError(400, f"prompt: token ids go from 0 to {bound}", param="prompt")
            prompts.append(ids)
        return self._job("cmpl", prompts, wanted, wanted.max_tokens, "prompt")

    def chat_job(self, wanted: ChatRequest) -> Job:
        """Messages to a job, by the model's chat template."""
        messages = [message.plain() for message in wanted.messages]
        ids, _ = self.model.tokenizer.encode_chat(messages, add_generation_prompt=True)
        limit = wanted.max_completion_tokens or wanted.max_tokens
        return self._job("chatcmpl", [list(ids)], wanted, limit, "messages")

    async def run(self, job: Job) -> list[Choice]:
        """All choices, whole."""
        choices = [Choice() for _ in job.requests]
        async with contextlib.aclosing(self.stream(job)) as pieces:
            async for piece in pieces:
                choice = choices[piece.index]
                choice.text += piece.text
                choice.token_ids += piece.token_ids
                choice.logprobs += piece.logprobs
                choice.finish_reason = piece.finish_reason
        return choices

    async def stream(self, job: Job) -> AsyncGenerator[Piece, None]:
        """The pieces of all choices as they come; leaving early aborts what still runs."""
        queue: asyncio.Queue[Piece | BaseException] = asyncio.Queue()

        async def forward(index: int) -> None:
            try:
                async for piece in self._choice(index, job):
                    queue.put_nowait(piece)
            except Exception as problem:
                queue.put_nowait(problem)

        tasks = [asyncio.create_task(forward(index)) for index in range(len(job.requests))]
        unfinished = len(tasks)
        try:
            while unfinished:
                piece = await queue.get()
                if isinstance(piece, BaseException):
                    raise piece
                job.completion_tokens += len(piece.token_ids)
                unfinished -= piece.finish_reason is not None
                yield piece
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _choice(self, index: int, job: Job) -> AsyncGenerator[Piece, None]:
        """One choice: engine deltas to text; a stop string ends it and frees its place."""
        text = TextStream(self.model.text, job.stop)
        async with contextlib.aclosing(self._loop.stream(job.requests[index])) as deltas:
            async for delta in deltas:
                gained = text.push(delta.token_ids)
                finish = "stop" if text.stopped else delta.finish_reason
                if finish is not None:
                    gained += text.finish()
                    finish = "stop" if text.stopped else finish
                yield Piece(index, gained, delta.token_ids, delta.logprobs, finish)
                if finish is not None:
                    return

    def _job(
        self,
        prefix: str,
        prompts: list[list[int]],
        wanted: Sampling,
        max_tokens: int | None,
        param: str,
    ) -> Job:
        if not prompts or len(prompts) * wanted.n > MAX_CHOICES:
            count = len(prompts) * wanted.n
            raise ApiError(400, f"found {count} choices; from 1 to {MAX_CHOICES}", param=param)
        job_id = f"{prefix}-{uuid.uuid4().hex}"
        requests: list[Request] = []
        for prompt in prompts:
            room = self._room(prompt, max_tokens, param)
            for _ in range(wanted.n):
                number = len(requests)
                seed = None if wanted.seed is None else (wanted.seed + number) % 2**32
                requests.append(
                    Request(
                        id=f"{job_id}-{number}",
                        prompt_ids=tuple(prompt),
                        max_tokens=room,
                        temperature=wanted.temperature,
                        top_p=wanted.top_p,
                        seed=seed,
                        stop_ids=self.model.stop_ids,
                    )
                )
        prompt_tokens = sum(map(len, prompts))
        stop = wanted.stop_texts()
        return Job(job_id, requests, stop, prompt_tokens, wanted.stream, wanted.usage_wanted())

    def _room(self, prompt: list[int], max_tokens: int | None, param: str) -> int:
        """New tokens the request may have; ApiError 400 when they do not fit the context."""
        if not prompt:
            raise ApiError(400, f"{param}: found an empty prompt, expected a token", param=param)
        context = self.model.engine.context_tokens
        wanted = max_tokens or max(1, context - len(prompt))
        if len(prompt) + wanted > context:
            message = (
                f"this model's context is {context} tokens; the request asks for"
                f" {len(prompt) + wanted} ({len(prompt)} in {param}, {wanted} to generate):"
                " shorten one of them"
            )
            raise ApiError(400, message, param=param, code="context_length_exceeded")
        return wanted
