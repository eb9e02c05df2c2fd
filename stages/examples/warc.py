"""Writes WARC 1.1 files: each record its own gzip member, with digests, the same bytes every time.

Format: ISO 28500:2017; digests are base32 SHA-1 as crawlers write them.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path

CRAWL_DATE = "2025-03-14T09:26:53Z"
HTTP_DATE = "Fri, 14 Mar 2025 09:26:53 GMT"


def digest(data: bytes) -> str:
    """ "sha1:" and the base32 SHA-1 of `data`."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data).digest()).decode()


def gzip_member(data: bytes) -> bytes:
    """`data` as one gzip member without a time stamp."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


class WarcWriter:
    """Collects the records of one file; `close` writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: list[bytes] = []
        self._sequence = 0
        info = (
            "software: raylm examples\r\nformat: WARC File Format 1.1\r\n"
            "description: a generated sample crawl; all pages, people and places are invented\r\n"
        )
        self._add("warcinfo", info.encode(), {
            "WARC-Filename": path.name, "Content-Type": "application/warc-fields",
        })  # fmt: skip

    def response(self, url: str, head: Mapping[str, str], body: bytes, status: int = 200) -> None:
        """A response record: HTTP status line, header fields `head`, and `body`."""
        reason = {200: "OK", 404: "Not Found"}[status]
        fields = {"Date": HTTP_DATE, "Server": "nginx", **head, "Content-Length": str(len(body))}
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{key}: {fields[key]}" for key in fields)]
        block = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
        self._add("response", block, {
            "WARC-Target-URI": url, "WARC-Payload-Digest": digest(body),
            "Content-Type": "application/http; msgtype=response",
        })  # fmt: skip

    def request(self, url: str) -> None:
        """The request that a response answered."""
        host, _, path = url.split("//", 1)[1].partition("/")
        block = f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: raylm-sample\r\n\r\n"
        self._add("request", block.encode(), {
            "WARC-Target-URI": url, "Content-Type": "application/http; msgtype=request",
        })  # fmt: skip

    def close(self, *, cut_bytes: int = 0) -> int:
        """Write the file, the last record short of its last `cut_bytes`; returns the size."""
        data = b"".join(self._members)
        data = data[: len(data) - cut_bytes]
        self._path.write_bytes(data)
        return len(data)

    def _add(self, kind: str, block: bytes, fields: Mapping[str, str]) -> None:
        self._sequence += 1
        name = f"{self._path.name} {self._sequence}"
        header = {
            "WARC-Type": kind,
            "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}>",
            "WARC-Date": CRAWL_DATE,
            **fields,
            "WARC-Block-Digest": digest(block),
            "Content-Length": str(len(block)),
        }
        lines = ["WARC/1.1", *(f"{key}: {value}" for key, value in header.items())]
        record = ("\r\n".join(lines) + "\r\n\r\n").encode() + block + b"\r\n\r\n"
        self._members.append(gzip_member(record))
