"""HTTP responses as archives store them: status, headers, and the body behind its content
coding.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from io import BytesIO

from backports import zstd
from fastwarc.stream_io import BrotliReader

_MAX_CODINGS = 3
_GZIP = b"\x1f\x8b\x08"
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")


@dataclass(frozen=True, slots=True)
class Response:
    """A stored response: `body` is still in its transfer and content coding."""

    status: int
    media_type: str
    charset: str | None
    content_coding: str
    chunked: bool
    body: bytes


def parse_response(block: bytes) -> Response | None:
    """Split a stored response into its parts; None if it does not begin with an HTTP status
    line.
    """
    head, separator, body = block.partition(b"\r\n\r\n")
    if not separator:
        head, _, body = block.partition(b"\n\n")
    lines = head.decode("latin-1").splitlines()
    status_line = lines[0].split() if lines else []
    if (
        len(status_line) < 2
        or not status_line[0].startswith("HTTP/")
        or not status_line[1].isdigit()
    ):
        return None
    fields = Message()
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip()] = value.strip()
    return Response(
        status=int(status_line[1]),
        media_type=fields.get_content_type() if "content-type" in fields else "",
        charset=fields.get_content_charset(),
        content_coding=str(fields.get("content-encoding", "")).strip().lower(),
        chunked="chunked" in str(fields.get("transfer-encoding", "")).lower(),
        body=body,
    )


def decode_content(response: Response, limit: int) -> bytes:
    """Undo chunking and content codings (gzip, deflate, br, zstd; several in turn); at most `limit`
    + 1 bytes ever leave a coding, so a bomb costs no more. ValueError where a coding is broken.

    Archives often keep the header of a coding that they undid: a body without the coding's first
    bytes that reads as text is taken as it is.
    """
    body = _unchunk(response.body) if response.chunked else response.body
    codings = [c.strip() for c in response.content_coding.split(",")]
    codings = [c for c in codings if c not in ("", "identity", "none", "utf-8", "8bit")]
    if not codings and body.startswith(_GZIP):  # sent as it lay on the disk
        codings = ["gzip"]
    if len(codings) > _MAX_CODINGS:
        raise ValueError(f"{len(codings)} content codings, one in another")
    for coding in reversed(codings):
        decode = _CODINGS.get(coding)
        if decode is None and not _reads_as_text(body):
            raise ValueError(f"unknown content coding {coding!r}")
        if decode is None or not body:
            continue
        try:
            body = decode(body, limit + 1)
        except (zlib.error, zstd.ZstdError, EOFError, OSError) as error:
            if not _reads_as_text(body):
                raise ValueError(f"broken {coding} content: {error}") from error
    return body[: limit + 1]


def _gunzip(body: bytes, size: int) -> bytes:
    out = b""
    while body[:2] == b"\x1f\x8b" and len(out) < size:
        member = zlib.decompressobj(31)
        out += member.decompress(body, size - len(out))
        if not member.eof and len(out) < size:
            raise EOFError(f"it ends after {len(out)} bytes of text")
        body = member.unused_data
    if not out:
        raise zlib.error("not a gzip member")
    return out


def _inflate(body: bytes, size: int) -> bytes:
    """Deflate with the zlib header, and without it, as many servers send it."""
    for window in (15, -15):
        stream = zlib.decompressobj(window)
        try:
            out = stream.decompress(body, size)
        except zlib.error:
            if window < 0:
                raise
            continue
        if not stream.eof and len(out) < size:
            raise EOFError(f"it ends after {len(out)} bytes of text")
        return out
    raise AssertionError("unreachable")


def _unbrotli(body: bytes, size: int) -> bytes:
    return bytes(BrotliReader(BytesIO(body)).read(size))


def _unzstd(body: bytes, size: int) -> bytes:
    stream = zstd.ZstdDecompressor()
    out = stream.decompress(body, size)
    if not stream.eof and len(out) < size:
        raise EOFError(f"it ends after {len(out)} bytes of text")
    return out


_CODINGS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    "br": _unbrotli,
    "zstd": _unzstd,
}


def _reads_as_text(body: bytes) -> bool:
    """Whether the beginning could be text: hardly a control character in it, and an element or a
    line of words.
    """
    head = body[:1024]
    return bool(head) and len(_CONTROL.findall(head)) * 100 <= len(head) and b"<" in head


def _unchunk(body: bytes) -> bytes:
    """The body behind chunked transfer coding (RFC 9112, 7.1), as far as it holds.

    Many archives say chunked and stored it plain, or cut, or with wrong sizes: what does not read
    as a chunk is taken as it is.
    """
    out, at = bytearray(), 0
    while size_line := _CHUNK_SIZE.match(body, at):
        size, at = int(size_line[1], 16), size_line.end()
        if size == 0:
            return bytes(out)
        out += body[at : at + size]
        at += size
        if body.startswith(b"\r\n", at):
            at += 2
        elif body.startswith(b"\n", at):
            at += 1
    return bytes(out + body[at:])
