"""The endpoint under Ray Serve: replicas, streams, a client that leaves, and bad settings."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import openai
import pytest

from cluster.errors import UserError
from serve import app

MESSAGES = [{"role": "user", "content": "Lena has 12 apples."}]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def url(ray_session: None, gguf_f16: Path) -> Iterator[str]:
    yield app.serve(gguf_f16, port=free_port(), replicas=2, name="tiny", block=False)
    app.stop()


@pytest.mark.dist
def test_two_replicas_answer_the_openai_client(url: str) -> None:
    from ray import serve as ray_serve

    deployment = ray_serve.status().applications[app.APPLICATION].deployments["endpoint"]
    assert {str(state): count for state, count in deployment.replica_states.items()} == {
        "RUNNING": 2
    }
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        settings = {"model": "tiny", "messages": MESSAGES, "max_tokens": 30, "temperature": 0}

        def streamed(_: int) -> str:
            chunks = client.chat.completions.create(**settings, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

        whole = client.chat.completions.create(**settings).choices[0].message.content
        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(streamed, range(24))) == {whole}
        with pytest.raises(openai.NotFoundError, match="no model 'other'"):
            client.chat.completions.create(model="other", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError, match="max_tokens"):
            client.completions.create(model="tiny", prompt="a", max_tokens=-1)
    assert httpx.get(f"{url}/").status_code == 200


@pytest.mark.dist
def test_pieces_arrive_one_by_one_and_leaving_aborts(url: str) -> None:
    def held() -> float:
        lines = [httpx.get(f"{url}/metrics").text.splitlines() for _ in range(12)]
        return max(float(line.split()[-1]) for one in lines for line in one if "requests{" in line)

    body = {"model": "tiny", "prompt": "a", "max_tokens": 250, "n": 16, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", content=json.dumps(body)) as stream:
        first = next(line for line in stream.iter_lines() if line)
        assert json.loads(first.removeprefix("data: "))["choices"]
    deadline = time.monotonic() + 20
    while held() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert held() == 0


def test_mistakes_before_anything_starts(tmp_path: Path, gguf_f16: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model: found nothing; expected config.json"):
        app.serve(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        app.serve(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot read the API key file"):
        app.serve(gguf_f16, keys_file=tmp_path / "keys")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=r"Address already in use.*--port"):
            app.serve(gguf_f16, port=taken.getsockname()[1])


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match=r"endpoint setting replica: .*known: model, store, name"):
        app.build_app({"model": "/m", "replica": 2})
    with pytest.raises(UserError, match=r"endpoint setting replicas: .*greater than or equal to 1"):
        app.build_app({"model": "/m", "replicas": 0})


def test_what_does_not_start_is_said_in_rays_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import serve as ray_serve

    endpoint = SimpleNamespace(message="2 replicas have taken more than 30s to be scheduled")
    state = SimpleNamespace(status="DEPLOYING", message="", deployments={"endpoint": endpoint})
    status = SimpleNamespace(applications={app.APPLICATION: state})
    monkeypatch.setattr(ray_serve, "status", lambda: status)
    with pytest.raises(RuntimeError, match="taken more than 30s to be scheduled"):
        app._wait_until_running(deadline_s=0.3)
    state.status = "RUNNING"
    app._wait_until_running(deadline_s=0.0)
