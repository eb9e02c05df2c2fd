"""The OpenAI-compatible API over a real engine and a real socket, by the unmodified client."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from model.tokenizer import Tokenizer
from serve import model_folder
from serve.access import Access, hash_key, parse_key
from serve.endpoint import Endpoint
from tests.serve.test_engines import PROMPTS

NAME = "tiny"
HELLO = [{"role": "user", "content": "Lena has 12 apples."}]


@contextlib.contextmanager
def running(folder: Path, access: Access, capacity: int = 64) -> Iterator[SimpleNamespace]:
    """The endpoint behind uvicorn in a thread."""
    endpoint = Endpoint(model_folder.load(folder, sequences=8, threads=1), NAME, access, capacity)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(endpoint.application(), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield SimpleNamespace(url=f"http://127.0.0.1:{port}", endpoint=endpoint)
        finally:
            server.should_exit = True
            thread.join()
            endpoint.loop.close()


@pytest.fixture(scope="module")
def served(gguf_f16: Path) -> Iterator[SimpleNamespace]:
    with running(gguf_f16, Access([])) as here:
        yield here


@pytest.fixture(scope="module")
def client(served: SimpleNamespace) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as here:
        yield here


def post(served: SimpleNamespace, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.url}{path}", json={"model": NAME} | body, timeout=30)


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError, match="serves 'tiny'"):
        client.models.retrieve("gpt-4")


def test_completions_of_ids_stream_and_whole_agree(client: openai.OpenAI, gguf_f16: Path) -> None:
    ask = {"model": NAME, "prompt": list(PROMPTS[0]), "max_tokens": 20, "temperature": 0}
    whole = client.completions.create(**ask, logprobs=1)
    choice = whole.choices[0]
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == len(PROMPTS[0])
    assert whole.usage.completion_tokens == len(choice.logprobs.token_logprobs)  # type: ignore
    assert choice.finish_reason in ("length", "stop")
    assert all(value <= 0 for value in choice.logprobs.token_logprobs)  # type: ignore
    pieces = list(
        client.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(piece.choices[0].text for piece in pieces[:-1]) == choice.text
    assert pieces[-1].usage == whole.usage
    assert pieces[-2].choices[0].finish_reason == choice.finish_reason


def test_chat_stream_and_whole_agree(client: openai.OpenAI) -> None:
    ask = {"model": NAME, "messages": HELLO, "max_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**ask, logprobs=True)
    message = whole.choices[0].message
    assert message.role == "assistant"
    entries = whole.choices[0].logprobs.content  # type: ignore[union-attr]
    assert entries is not None
    text = b"".join(bytes(entry.bytes) for entry in entries).decode("utf-8", "replace")
    assert text == message.content
    pieces = list(client.chat.completions.create(**ask, stream=True))
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == message.content
    assert len({piece.id for piece in pieces}) == 1
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_a_chat_is_the_templates_prompt(client: openai.OpenAI, gguf_f16: Path) -> None:
    ids, _ = Tokenizer.load(gguf_f16).encode_chat(HELLO, add_generation_prompt=True)
    settings = {"model": NAME, "max_tokens": 16, "temperature": 0}
    chat = client.chat.completions.create(messages=HELLO, **settings)
    plain = client.completions.create(prompt=ids, **settings)
    assert chat.choices[0].message.content == plain.choices[0].text
    assert chat.usage == plain.usage


def test_many_prompts_and_choices(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=NAME, prompt=["Lena", "The river"], n=2, max_tokens=8, temperature=1, seed=3
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text != answer.choices[1].text
    again = client.completions.create(
        model=NAME, prompt=["Lena", "The river"], n=2, max_tokens=8, temperature=1, seed=3
    )
    texts = [[choice.text for choice in one.choices] for one in (answer, again)]
    assert texts[0] == texts[1]


def test_a_stop_string_cuts_the_answer(client: openai.OpenAI) -> None:
    ask = {"model": NAME, "prompt": list(PROMPTS[0]), "max_tokens": 40, "temperature": 0}
    full = client.completions.create(**ask).choices[0].text
    stop = full[9:12]
    cut = client.completions.create(**ask, stop=[stop, "not in it"])
    assert cut.choices[0].text == full[: full.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens < 40  # type: ignore[union-attr]
    streamed = client.completions.create(**ask, stop=stop, stream=True)
    assert "".join(piece.choices[0].text for piece in streamed) == cut.choices[0].text


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "said"),
    [
        ("/v1/completions", {"prompt": "a", "model": "gpt-4"}, 404, "model_not_found", "serves"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 256}, 400, "context_length_exceeded",
         "256 tokens"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 300}]}, 400,
         "context_length_exceeded", "shorten"),
        ("/v1/completions", {"prompt": []}, 400, None, "empty prompt"),
        ("/v1/completions", {"prompt": [4, 384]}, 400, None, "from 0 to 383"),
        ("/v1/completions", {"prompt": "a", "temperature": 3}, 400, None, "temperature"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 0}, 400, None, "max_tokens"),
        ("/v1/completions", {"prompt": "a", "n": 99}, 400, None, "n:"),
        ("/v1/completions", {"prompt": ["a"] * 9, "n": 2}, 400, None, "18 choices"),
        ("/v1/completions", {"prompt": "a", "logprobs": 5}, 400, None, "logprobs"),
        ("/v1/completions", {"prompt": "a", "stop": list("abcde")}, 400, None, "at most 4"),
        ("/v1/completions", {"prompt": "a", "temprature": 1}, 400, None, "temprature"),
        ("/v1/completions", {}, 400, None, "prompt"),
        ("/v1/completions", {"prompt": None}, 400, None,
         "prompt: Input should be a valid string or a valid array"),
        ("/v1/completions", {"prompt": "a", "nonsense": None}, 400, None, "nonsense"),
        ("/v1/chat/completions", {"messages": []}, 400, None, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, 400, None,
         "role"),
        ("/v1/chat/completions", {"messages": HELLO, "tools": [{"type": "function"}]}, 400, None,
         "tools"),
        ("/v1/chat/completions", {"messages": HELLO, "presence_penalty": 1}, 400, None,
         "presence_penalty"),
        ("/v1/embeddings", {}, 404, None, "/v1/embeddings"),
    ],
)  # fmt: skip
def test_mistakes_get_openais_error_form(
    served: SimpleNamespace, path: str, body: dict, status: int, code: str | None, said: str
) -> None:
    answer = post(served, path, **body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert said in error["message"]


def test_null_is_the_default(served: SimpleNamespace) -> None:
    """As OpenAI's reference has it: clients send null for what they leave open."""
    shared = dict.fromkeys(
        ("temperature", "top_p", "n", "seed", "stop", "stream", "stream_options", "logit_bias",
         "presence_penalty", "frequency_penalty", "user", "logprobs")
    )  # fmt: skip
    text = {"max_tokens": None, "echo": None, "best_of": None, "suffix": None, "prompt": "Lena"}
    answer = post(served, "/v1/completions", **shared, **text)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] <= 16
    chat = dict.fromkeys(("tools", "top_logprobs", "response_format", "max_tokens", "metadata"))
    body = {**shared, **chat, "messages": HELLO, "max_completion_tokens": 4}
    assert post(served, "/v1/chat/completions", **body).status_code == 200


def test_a_body_that_is_no_json_and_a_wrong_method(served: SimpleNamespace) -> None:
    answer = httpx.post(f"{served.url}/v1/completions", content=b"{oh")
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["error"]["message"]
    assert httpx.get(f"{served.url}/v1/completions").status_code == 405


def test_a_client_that_leaves_frees_its_place(served: SimpleNamespace) -> None:
    def busy() -> int:
        return served.endpoint.loop.engine.stats().requests

    body = {"model": NAME, "prompt": "a", "max_tokens": 250, "temperature": 1, "n": 8}
    body_bytes = json.dumps(body | {"stream": True})
    made = served.endpoint.loop.engine.stats().generated_tokens
    with httpx.stream("POST", f"{served.url}/v1/completions", content=body_bytes) as stream:
        next(stream.iter_lines())
    with contextlib.suppress(httpx.TimeoutException):
        httpx.post(f"{served.url}/v1/completions", json=body, timeout=0.02)
    deadline = time.monotonic() + 10
    while busy() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert busy() == 0
    assert served.endpoint.loop.running == 0
    assert served.endpoint.loop.engine.stats().generated_tokens - made < 2 * 8 * 250


def test_health_metrics_and_the_page(served: SimpleNamespace) -> None:
    assert httpx.get(f"{served.url}/health").json() == {"healthy": True}
    assert 'raylm_tokens_total{model="tiny",engine="openvino"}' in (
        httpx.get(f"{served.url}/metrics").text
    )
    page = httpx.get(f"{served.url}/")
    assert "text/html" in page.headers["content-type"]
    assert "http://" not in page.text and "https://" not in page.text, "nothing from elsewhere"


def test_keys_limits_and_overload(checkpoint: Path) -> None:
    """On the torch engine, so that it stands behind the same API."""
    key = parse_key(f"ann {hash_key('a-long-secret')} requests_per_minute=5")
    with running(checkpoint, Access([key]), capacity=2) as here:
        url = f"{here.url}/v1"
        stranger = openai.OpenAI(base_url=url, api_key="wrong", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError, match="not known"):
            stranger.models.list()
        assert httpx.get(f"{url}/models").status_code == 401
        assert httpx.get(f"{here.url}/health").status_code == 200
        with openai.OpenAI(base_url=url, api_key="a-long-secret", max_retries=0) as ann:
            ask = {"model": NAME, "prompt": "Lena", "temperature": 1}
            long = ann.completions.create(**ask, n=2, max_tokens=240, stream=True)
            next(iter(long))
            with pytest.raises(openai.RateLimitError, match="overloaded") as refused:
                ann.completions.create(**ask, max_tokens=1)
            assert refused.value.response.headers["retry-after"] == "1"
            long.close()
            for _ in range(3):
                ann.models.list()
            with pytest.raises(openai.RateLimitError, match="5 requests a minute"):
                ann.models.list()
