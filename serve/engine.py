"""The engine protocol: what the endpoint asks of whatever computes tokens, in token ids only.

An engine is synchronous and belongs to one thread. `add` queues a request, `step` advances every
running request together and returns what came out, `abort` drops one at once, `stats` says how busy
it is. Requests join and leave between steps (continuous batching). `EngineLoop` owns the thread and
turns the steps into one asynchronous `stream` per request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "abort"]
log = logging.getLogger("raylm.serve")


@dataclass(frozen=True)
class Request:
    """One prompt to continue. `temperature` 0 is greedy; `max_tokens` counts new tokens."""

    id: str
    prompt_ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Delta:
    """New tokens of one request since its last delta; `finish_reason` is set on the last one.

    `logprobs` are natural logarithms of the model's probability of each token, before temperature
    and top_p. A stop token is the last of `token_ids` when `finish_reason` is "stop".
    """

    request_id: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Stats:
    """How busy an engine is: requests it holds, and the used share of its KV cache (0..1)."""

    requests: int
    cache_used: float
    generated_tokens: int


class EngineError(Exception):
    """The engine failed; every request it held is lost, and the replica should be replaced."""


class Engine(Protocol):
    """What computes tokens. All calls come from one thread."""

    name: str
    context_tokens: int
    """Prompt and new tokens together must fit in this many."""

    def add(self, request: Request) -> None:
        """Queue a request; its id must not be in use."""

    def step(self) -> list[Delta]:
        """Advance all requests by one forward pass; the deltas that came out."""

    def abort(self, request_id: str) -> None:
        """Forget a request and free its cache; an unknown id is ignored."""

    def has_work(self) -> bool:
        """Whether any request is unfinished."""

    def stats(self) -> Stats:
        """How busy it is now."""


class EngineLoop:
    """Steps an engine in its own thread while there is work, and fans the deltas out.

    Safe to use from any number of coroutines of the event loop that calls `stream`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._commands: list[Callable[[], None]] = []
        self._wake = threading.Condition()
        self._closing = False
        self._failure: BaseException | None = None
        self._streams: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Delta | None]]] = {}
        self._thread = threading.Thread(target=self._run, name="raylm-engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Requests that somebody waits for."""
        return len(self._streams)

    @property
    def healthy(self) -> bool:
        """False once the engine has failed: it takes no more requests."""
        return self._failure is None and self._thread.is_alive()

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The request's deltas, the last with a finish reason; leaving early aborts the request."""
        queue: asyncio.Queue[Delta | None] = asyncio.Queue()
        with self._wake:
            self._refuse_when_down()
            self._streams[request.id] = (asyncio.get_running_loop(), queue)
        self._command(lambda: self.engine.add(request))
        finished = False
        try:
            while not finished:
                delta = await queue.get()
                if delta is None:
                    raise EngineError(f"the engine failed: {self._failure!r}")
                finished = delta.finish_reason is not None
                yield delta
        finally:
            self._streams.pop(request.id, None)
            if not finished:
                self._command(lambda: self.engine.abort(request.id))

    def close(self) -> None:
        """Stop stepping and wait for the thread; streams still open are told."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout=10)

    def _refuse_when_down(self) -> None:
        if self._closing or self._failure is not None:
            raise EngineError(f"the engine is down: {self._failure or 'closed'}")

    def _command(self, command: Callable[[], None]) -> None:
        with self._wake:
            self._commands.append(command)
            self._wake.notify()

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                for delta in self.engine.step():
                    self._deliver(delta.request_id, delta)
        except Exception as error:
            log.exception("the engine failed")
            self._failure = error
        with self._wake:
            self._closing = True
        for request_id in list(self._streams):
            self._deliver(request_id, None)

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to step; False when closing."""
        while True:
            with self._wake:
                self._wake.wait_for(
                    lambda: self._closing or bool(self._commands) or self.engine.has_work()
                )
                if self._closing:
                    return False
                commands, self._commands = self._commands, []
            for command in commands:
                command()
            if self.engine.has_work():
                return True

    def _deliver(self, request_id: str, delta: Delta | None) -> None:
        stream = self._streams.get(request_id)
        if stream is None:
            return
        loop, queue = stream
        with contextlib.suppress(RuntimeError):  # the reader's event loop has been closed
            loop.call_soon_threadsafe(queue.put_nowait, delta)
