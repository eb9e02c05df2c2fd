"""The OpenAI-compatible endpoint of one replica, as an ASGI application over one engine.

Routes: GET /v1/models, POST /v1/completions, POST /v1/chat/completions (both streaming or not),
GET /health, GET /metrics, and the chat page at /. It knows nothing of Ray: `serve.app` puts
replicas of it behind one address.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serve import openai_api
from serve.access import Access
from serve.answers import ChatAnswers, CompletionAnswers
from serve.completion import Completer, Job
from serve.engine import EngineError, EngineLoop
from serve.model_folder import ServedModel
from serve.openai_api import ApiError

log = logging.getLogger("raylm.serve")
PAGE = Path(__file__).parent / "chat" / "index.html"
MAX_BODY_BYTES = 8 << 20
Answer = TypeVar("Answer")


class Endpoint:
    """The routes over one model. `name` is what requests call the model."""

    def __init__(self, model: ServedModel, name: str, access: Access, capacity: int) -> None:
        self.loop = EngineLoop(model.engine)
        self.completer = Completer(model, self.loop, capacity)
        self.name = name
        self.created = int(time.time())
        self._access = access
        self._context_tokens = model.engine.context_tokens

    def application(self) -> Starlette:
        """The ASGI application."""
        post = {"methods": ["POST"]}
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/models/{model:path}", self.model),
                Route("/v1/completions", self.completions, **post),  # type: ignore[arg-type]
                Route("/v1/chat/completions", self.chat, **post),  # type: ignore[arg-type]
                Route("/health", self.health),
                Route("/metrics", self.metrics),
                Route("/", self.page),
            ],
            exception_handlers={
                ApiError: _api_error,
                HTTPException: _http_error,
                EngineError: _engine_error,
                Exception: _server_error,
            },
        )

    async def models(self, request: Request) -> Response:
        """The one model served here."""
        with self._access.admit(request.headers.get("authorization")):
            return JSONResponse(
                openai_api.model_list(self.name, self.created, self._context_tokens)
            )

    async def model(self, request: Request) -> Response:
        """The model by name."""
        with self._access.admit(request.headers.get("authorization")):
            self._check_model(request.path_params["model"])
            listed = openai_api.model_list(self.name, self.created, self._context_tokens)
            return JSONResponse(listed["data"][0])

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = await _body(request)
        return await self._answer(
            request,
            lambda: self._completion_job(openai_api.parse(openai_api.CompletionRequest, body)),
        )

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = await _body(request)
        return await self._answer(
            request, lambda: self._chat_job(openai_api.parse(openai_api.ChatRequest, body))
        )

    async def health(self, request: Request) -> Response:
        """200 while the engine works, 503 after it failed."""
        healthy = self.loop.healthy
        return JSONResponse({"healthy": healthy}, status_code=200 if healthy else 503)

    async def metrics(self, request: Request) -> Response:
        """This replica's load in Prometheus text form."""
        stats = self.loop.engine.stats()
        figures = [
            ("raylm_requests", "gauge", "Requests held by the engine.", stats.requests),
            ("raylm_cache_used", "gauge", "Share of the KV cache in use.", stats.cache_used),
            ("raylm_tokens_total", "counter", "Tokens generated.", stats.generated_tokens),
        ]
        lines = []
        for name, kind, text, value in figures:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines.append(f'{name}{{model="{self.name}",engine="{self.loop.engine.name}"}} {value}')
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def page(self, request: Request) -> Response:
        """The chat page."""
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    def _check_model(self, asked: str) -> None:
        if asked != self.name:
            message = f"there is no model {asked!r} here; this endpoint serves {self.name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def _completion_job(
        self, wanted: openai_api.CompletionRequest
    ) -> tuple[Job, CompletionAnswers]:
        self._check_model(wanted.model)
        job = self.completer.completion_job(wanted)
        text = self.completer.model.text
        return job, CompletionAnswers(self.name, text, wanted.logprobs is not None)

    def _chat_job(self, wanted: openai_api.ChatRequest) -> tuple[Job, ChatAnswers]:
        self._check_model(wanted.model)
        job = self.completer.chat_job(wanted)
        return job, ChatAnswers(self.name, self.completer.model.text, wanted.logprobs)

    async def _answer(
        self,
        request: Request,
        prepare: Callable[[], tuple[Job, CompletionAnswers | ChatAnswers]],
    ) -> Response:
        """Admit, check, run; the admission lasts until the last piece has been sent."""
        with contextlib.ExitStack() as admission:
            admission.enter_context(self._access.admit(request.headers.get("authorization")))
            job, answers = prepare()
            admission.enter_context(self.completer.reserve(len(job.requests)))
            if not job.stream:
                outcome = await _unless_left(request, self.completer.run(job))
                return JSONResponse(answers.whole(job, outcome))
            events = self._events(job, answers, admission.pop_all())
            headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _events(
        self, job: Job, answers: CompletionAnswers | ChatAnswers, admission: contextlib.ExitStack
    ) -> AsyncGenerator[str, None]:
        """Server-sent events; a failure on the way is told in the stream, as headers have gone."""
        with admission:
            try:
                for chunk in answers.opening(job):
                    yield _event(chunk)
                async with contextlib.aclosing(self.completer.stream(job)) as pieces:
                    async for piece in pieces:
                        yield _event(answers.chunk(job, piece))
                if job.usage_wanted:
                    yield _event(answers.usage_chunk(job))
                yield "data: [DONE]\n\n"
            except EngineError as problem:
                yield _event(_engine_failure(problem).body)


def _event(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _body(request: Request) -> bytes:
    """The request's body, refused as soon as it is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return body


async def _unless_left(request: Request, work: Awaitable[Answer]) -> Answer:
    """The result of `work`, which is cancelled when the client goes away first."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "the client closed the connection")
        return working.result()
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _engine_failure(problem: EngineError) -> ApiError:
    return ApiError(503, str(problem), kind="server_error", code="engine_failed")


async def _api_error(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, ApiError)
    return JSONResponse(problem.body, status_code=problem.status, headers=problem.headers)


async def _http_error(request: Request, problem: Exception) -> Response:
    """Unknown path or method."""
    assert isinstance(problem, HTTPException)
    message = f"{problem.detail}: {request.method} {request.url.path}"
    error = ApiError(problem.status_code, message)
    headers = dict(problem.headers or {})
    return JSONResponse(error.body, status_code=problem.status_code, headers=headers)


async def _engine_error(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, EngineError)
    return await _api_error(request, _engine_failure(problem))


async def _server_error(request: Request, problem: Exception) -> Response:
    log.error("unexpected failure", exc_info=problem)
    error = ApiError(500, "the server failed; its log has the reason", kind="server_error")
    return await _api_error(request, error)
