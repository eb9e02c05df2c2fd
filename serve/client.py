"""`raylm chat`: talk to an OpenAI-compatible endpoint from the terminal, the answer as it comes.

With a terminal it is a conversation; with standard input from a pipe, one question, and only the
answer goes to standard output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import httpx
from rich.console import Console

from cluster.errors import UserError

API_KEY = "RAYLM_API_KEY"
WAIT_S = 120.0
LEAVE = ("/exit", "/quit")


def chat(url: str, model: str | None = None, *, system: str | None = None) -> int:
    """Chat with the endpoint at `url`; the exit code.

    The key, where the endpoint wants one, comes from the environment variable RAYLM_API_KEY.
    """
    base = url.rstrip("/").removesuffix("/v1")
    key = os.environ.get(API_KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    opening = [{"role": "system", "content": system}] if system else []
    with httpx.Client(base_url=base, headers=headers, timeout=WAIT_S) as client:
        model = model or _only_model(client)
        if sys.stdin.isatty():
            return _converse(client, model, opening)
        return _ask_once(client, model, opening)


def _ask_once(client: httpx.Client, model: str, opening: list[dict[str, str]]) -> int:
    question = sys.stdin.read().strip()
    if not question:
        raise UserError("standard input is empty; expected a question: echo hi | raylm chat")
    for text in stream_answer(client, model, [*opening, {"role": "user", "content": question}]):
        print(text, end="", flush=True)
    print()
    return 0


def _converse(client: httpx.Client, model: str, opening: list[dict[str, str]]) -> int:
    console = Console()
    console.print(f"[bold]{model}[/] at {client.base_url}. /new starts over, /exit leaves.")
    messages = list(opening)
    while True:
        try:
            question = console.input("[bold cyan]you[/] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return 0
        if question in LEAVE:
            return 0
        if question == "/new":
            messages = list(opening)
            continue
        if question:
            messages = _exchange(console, client, model, messages, question)


def _exchange(
    console: Console,
    client: httpx.Client,
    model: str,
    messages: list[dict[str, str]],
    question: str,
) -> list[dict[str, str]]:
    """One question and its answer: the messages after it. Ctrl-C cuts the answer short."""
    asked = [*messages, {"role": "user", "content": question}]
    answer = ""
    console.print("[bold green]model[/] ", end="")
    try:
        for text in stream_answer(client, model, asked):
            answer += text
            console.print(text, end="", markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print(" [dim](stopped)[/]", end="")
    except UserError as problem:
        console.print(str(problem), style="red", markup=False)
        return messages
    console.print()
    return [*asked, {"role": "assistant", "content": answer}]


def stream_answer(
    client: httpx.Client, model: str, messages: list[dict[str, str]]
) -> Iterator[str]:
    """The answer's text as it comes; an error of the endpoint is a UserError."""
    body = {"model": model, "messages": messages, "stream": True}
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                response.read()
                raise _refusal(response)
            for line in response.iter_lines():
                data = line.removeprefix("data: ")
                if not line.startswith("data: ") or data == "[DONE]":
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    raise UserError(f"the endpoint failed: {chunk['error']['message']}")
                for choice in chunk["choices"]:
                    yield choice["delta"].get("content") or ""
    except httpx.HTTPError as problem:
        raise _unreachable(client, problem) from problem


def _only_model(client: httpx.Client) -> str:
    try:
        response = client.get("/v1/models")
    except httpx.HTTPError as problem:
        raise _unreachable(client, problem) from problem
    if response.status_code != 200:
        raise _refusal(response)
    return str(response.json()["data"][0]["id"])


def _unreachable(client: httpx.Client, problem: httpx.HTTPError) -> UserError:
    reason = str(problem) or type(problem).__name__
    return UserError(
        f"no endpoint answers at {client.base_url} ({reason}): start one with `raylm serve`,"
        " or give its address with --url"
    )


def _refusal(response: httpx.Response) -> UserError:
    """The endpoint's own sentence, with what to do about a missing key."""
    try:
        detail: Any = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    hint = f" (put the key in {API_KEY})" if response.status_code == 401 else ""
    return UserError(f"the endpoint answers {response.status_code}: {detail}{hint}")
