"""Who may call the endpoint, and how much: API keys by their hashes, and limits per key.

Keys come one a line, from a file or the environment variable RAYLM_API_KEYS:

    NAME sha256:HEX [requests_per_minute=N] [concurrent=N]

`raylm` keeps and compares hashes only, in constant time; a key itself is never stored or logged.
With no keys the endpoint is open, as on a laptop. Limits count per replica.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import UserError
from serve.openai_api import ApiError

ENVIRONMENT = "RAYLM_API_KEYS"
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_LIMITS = ("requests_per_minute", "concurrent")


def hash_key(key: str) -> str:
    """What stands for `key` in the file; keys are long and random, so a plain hash is enough."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


@dataclass
class Key:
    """One caller: a name for the logs, the hash of its key, its limits, and what it uses now."""

    name: str
    digest: str
    requests_per_minute: int | None = None
    concurrent: int | None = None
    _running: int = field(default=0, repr=False)
    _allowance: float = field(default=0.0, repr=False)
    _last_s: float | None = field(default=None, repr=False)

    def take(self, now_s: float) -> str | None:
        """Count one request in; the limit that forbids it, if one does.

        A token bucket: it holds a minute's worth and refills evenly.
        """
        if self.concurrent is not None and self._running >= self.concurrent:
            return f"{self.concurrent} requests at once"
        if self.requests_per_minute is not None:
            rate = self.requests_per_minute
            passed_s = 60.0 if self._last_s is None else now_s - self._last_s
            self._allowance = min(float(rate), self._allowance + passed_s * rate / 60.0)
            self._last_s = now_s
            if self._allowance < 1.0:
                return f"{rate} requests a minute"
            self._allowance -= 1.0
        self._running += 1
        return None

    def give_back(self) -> None:
        """The request is over."""
        self._running -= 1


class Access:
    """The gate in front of the API."""

    def __init__(self, keys: list[Key], clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock

    @contextlib.contextmanager
    def admit(self, authorization: str | None) -> Iterator[str]:
        """Let one request in for as long as the context lasts; gives the caller's name.

        Raises ApiError 401 for a missing or unknown key, 429 over the key's limits.
        """
        if not self._keys:
            yield "anyone"
            return
        key = self._find(authorization)
        over = key.take(self._clock())
        if over is not None:
            message = f"over this key's limit of {over}: wait and try again"
            raise ApiError(429, message, kind="requests", code="rate_limit_exceeded")
        try:
            yield key.name
        finally:
            key.give_back()

    def _find(self, authorization: str | None) -> Key:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise ApiError(
                401,
                "this endpoint wants an API key: send the header 'Authorization: Bearer KEY'",
                code="missing_api_key",
            )
        digest = hash_key(token.strip())
        # Every key is compared, so the time tells nothing about which one was close.
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        if not found:
            raise ApiError(401, "this API key is not known here", code="invalid_api_key")
        return found[0]


def read_keys(file: str | Path | None = None) -> list[str]:
    """The key lines of `file`, else of the environment; none when neither is there."""
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except OSError as problem:
            raise UserError(f"cannot read the API key file {file}: {problem.strerror}") from None
    else:
        text = os.environ.get(ENVIRONMENT, "")
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if file is not None and not lines:
        raise UserError(f"the API key file {file} holds no keys: nobody could call the endpoint")
    for line in lines:
        parse_key(line)
    return lines


def parse_key(line: str) -> Key:
    """One line of the key file; what is wrong is told without showing the line."""
    words = line.split()
    form = "NAME sha256:HEX [requests_per_minute=N] [concurrent=N]"
    if len(words) < 2 or not _HASH.fullmatch(words[1]):
        raise UserError(f"a line of the API keys is malformed: expected {form}")
    limits: dict[str, int] = {}
    for word in words[2:]:
        name, _, value = word.partition("=")
        if name not in _LIMITS or not value.isdigit() or int(value) < 1:
            raise UserError(f"API key {words[0]!r} has a malformed limit: expected {form}")
        limits[name] = int(value)
    return Key(words[0], words[1], **limits)
