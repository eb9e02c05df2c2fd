"""Keys and limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import UserError
from serve.access import ENVIRONMENT, Access, hash_key, parse_key, read_keys
from serve.openai_api import ApiError


def test_only_known_keys_come_in() -> None:
    access = Access([parse_key(f"ann {hash_key('a')}"), parse_key(f"bob {hash_key('b')}")])
    with access.admit("Bearer b") as name:
        assert name == "bob"
    for header in (None, "", "Bearer ", "Basic b", "b"):
        with pytest.raises(ApiError) as refused, access.admit(header):
            pass
        assert refused.value.body["error"]["code"] == "missing_api_key"
    with pytest.raises(ApiError) as refused, access.admit("Bearer c"):
        pass
    assert refused.value.status == 401
    assert "c" not in refused.value.body["error"]["message"].split()


def test_without_keys_anyone_may() -> None:
    with Access([]).admit(None) as name:
        assert name == "anyone"


def test_requests_a_minute_refill_evenly() -> None:
    now = [100.0]
    key = parse_key(f"ann {hash_key('a')} requests_per_minute=6")
    access = Access([key], clock=lambda: now[0])

    def allowed() -> int:
        count = 0
        while True:
            try:
                with access.admit("Bearer a"):
                    count += 1
            except ApiError as refused:
                assert refused.status == 429
                return count

    assert allowed() == 6
    now[0] += 9.9
    assert allowed() == 0
    now[0] += 10.2
    assert allowed() == 2
    now[0] += 3600
    assert allowed() == 6


def test_requests_at_once_are_given_back_also_after_errors() -> None:
    access = Access([parse_key(f"ann {hash_key('a')} concurrent=1")])
    for _ in range(3):
        with pytest.raises(RuntimeError), access.admit("Bearer a"):
            with pytest.raises(ApiError, match="1 requests at once"), access.admit("Bearer a"):
                pass
            raise RuntimeError


def test_key_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert read_keys() == []
    line = f"ann {hash_key('a')} concurrent=2"
    monkeypatch.setenv(ENVIRONMENT, f"# keys\n{line}\n")
    assert read_keys() == [line]
    file = tmp_path / "keys"
    file.write_text("# none\n")
    with pytest.raises(UserError, match="holds no keys"):
        read_keys(file)
    for wrong in ("ann plain-secret", f"ann {hash_key('a')} concurrent=0", "ann"):
        file.write_text(wrong)
        with pytest.raises(UserError, match="malformed") as refused:
            read_keys(file)
        assert "plain-secret" not in str(refused.value)
