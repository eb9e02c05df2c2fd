"""The terminal chat against the endpoint."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from cluster.errors import UserError
from serve.access import Access, hash_key, parse_key
from serve.client import API_KEY, chat
from tests.serve.test_endpoint import running


@pytest.fixture(scope="module")
def served(gguf_f16: Path) -> Iterator[SimpleNamespace]:
    with running(gguf_f16, Access([parse_key(f"ann {hash_key('secret')}")])) as here:
        yield here


def test_one_question_from_a_pipe(
    served: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(API_KEY, "secret")
    monkeypatch.setattr("sys.stdin", io.StringIO("Lena has 12 apples.\n"))
    assert chat(f"{served.url}/v1") == 0
    out = capsys.readouterr().out
    assert len(out.strip()) > 0
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    headers = {"Authorization": "Bearer secret"}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200


def test_mistakes_are_sentences(served: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(API_KEY, raising=False)
    with pytest.raises(UserError, match=f"401.*put the key in {API_KEY}"):
        chat(served.url)
    with pytest.raises(UserError, match=r"no endpoint answers at http://127\.0\.0\.1:9"):
        chat("http://127.0.0.1:9")
    monkeypatch.setenv(API_KEY, "secret")
    monkeypatch.setattr("sys.stdin", io.StringIO("hi"))
    with pytest.raises(UserError, match="404: there is no model 'other'"):
        chat(served.url, "other")
    monkeypatch.setattr("sys.stdin", io.StringIO("  "))
    with pytest.raises(UserError, match="standard input is empty"):
        chat(served.url)
