"""HTTP responses as archives store them: status, headers, and the body behind its content
coding.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from email.message import Message
from io import BytesIO

from fastwarc.stream_io import BrotliReader, ChunkedReader


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
    """Undo chunking and gzip, deflate or br; at most `limit` + 1 bytes. ValueError where it is
    broken.
    """
    body = response.body
    try:
        if response.chunked:
            body = _unchunk(body)
        if response.content_coding in ("gzip", "x-gzip"):
            return zlib.decompressobj(31).decompress(body, limit + 1)
        if response.content_coding == "deflate":
            window = (
                15 if body[:1] == b"\x78" else -15
            )  # many servers send it without the zlib header
            return zlib.decompressobj(window).decompress(body, limit + 1)
        if response.content_coding == "br":
            return bytes(BrotliReader(BytesIO(body)).read(limit + 1))
    except (zlib.error, OSError) as error:
        raise ValueError(
            f"broken {response.content_coding or 'chunked'} content: {error}"
        ) from error
    return body[: limit + 1]


def _unchunk(body: bytes) -> bytes:
    """The body behind chunked transfer coding, or as it is: many archives say chunked and stored it
    plain.
    """
    try:
        return bytes(ChunkedReader(BytesIO(body)).read(len(body))) or body
    except OSError:
        return body
