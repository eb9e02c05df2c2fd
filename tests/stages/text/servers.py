"""Real servers on this machine for tests of remote places: HTTP with ranges, S3 (moto's) and Google
Cloud Storage (gcp-storage-emulator's).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@contextmanager
def _serving(server: HTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class RangeServer:
    """Serves a folder's files by ranges; counts them, and breaks in the ways that a test asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ranges: list[tuple[str, str]] = []
        self.fail_next = 0
        """So many answers to come are 503."""
        self.gone_after: int | None = None
        """After so many ranges, everything is 404."""
        self.has_ranges = True
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

            def do_HEAD(self) -> None:
                outer._answer(self, body=False)

            def do_GET(self) -> None:
                outer._answer(self, body=True)

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = self.folder / request.path.lstrip("/")
        gone = self.gone_after is not None and len(self.ranges) >= self.gone_after
        if gone or not path.is_file():
            request.send_error(404)
            return
        data, status = path.read_bytes(), 200
        size = len(data)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range") or "")
        if body and wanted:
            self.ranges.append((request.path, wanted[0]))
            if self.fail_next > 0:
                self.fail_next -= 1
                request.send_error(503)
                return
            if self.has_ranges:
                data, status = data[int(wanted[1]) : int(wanted[2]) + 1], 206
        request.send_response(status)
        request.send_header("Content-Length", str(len(data)))
        if self.has_ranges:
            request.send_header("Accept-Ranges", "bytes")
        if status == 206 and wanted:
            last = int(wanted[1]) + len(data) - 1
            request.send_header("Content-Range", f"bytes {wanted[1]}-{last}/{size}")
        request.end_headers()
        if body:
            request.wfile.write(data)

    @contextmanager
    def running(self) -> Iterator[RangeServer]:
        with _serving(self._server):
            yield self


@contextmanager
def s3_server(bucket: str) -> Iterator[str]:
    """moto's S3 server with one bucket; yields its endpoint. Credentials are in the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(
            Bucket=bucket
        )
        yield endpoint
    finally:
        server.stop()


class GoogleServer:
    """Google Cloud Storage's JSON API as gcp-storage-emulator speaks it, in memory.

    The emulator lets everybody in and lists everything at once: turning away (`refused`) and pages
    (`page_size`) are ours, in the form that Google documents for them.
    """

    def __init__(self, *buckets: str) -> None:
        from gcp_storage_emulator.handlers.buckets import create_bucket
        from gcp_storage_emulator.server import RequestHandler
        from gcp_storage_emulator.storage import Storage

        self.ranges: list[str] = []
        self.refused: dict[str, int] = {}
        """Bucket -> status of every answer about it."""
        self.page_size = 1000
        self.pages = 0
        self._storage = Storage(use_memory_fs=True)
        for bucket in buckets:
            create_bucket(bucket, self._storage)
        handler = partial(self._handler(RequestHandler), self._storage)
        self._server = HTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _handler(self, emulator: Any) -> Any:
        outer = self

        class Handler(emulator):  # type: ignore[misc]
            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

            def do_GET(self) -> None:
                if wanted := self.headers.get("Range"):
                    outer.ranges.append(wanted)
                where = urlsplit(self.path)
                bucket = re.search(r"/b/([^/]+)", where.path)
                name = bucket[1] if bucket else ""
                if status := outer.refused.get(name):
                    outer._send(self, status, outer._refusal(name, status))
                elif where.path.endswith("/o") and name in outer._storage.buckets:
                    outer._send(self, 200, outer._page(name, parse_qs(where.query)))
                elif ".." in unquote(where.path).split("/"):  # the emulator hangs up on these
                    outer._send(self, 404, {})
                else:
                    super().do_GET()

        return Handler

    def _refusal(self, bucket: str, status: int) -> dict[str, Any]:
        who = "Anonymous caller" if status == 401 else "reader@example.iam.gserviceaccount.com"
        said = (
            f"{who} does not have storage.objects.get access to the Google Cloud Storage object of"
            f" {bucket}. Permission 'storage.objects.get' denied on resource (or it may not exist)."
        )
        return {"error": {"code": status, "message": said, "errors": [{"message": said}]}}

    def _page(self, bucket: str, query: dict[str, list[str]]) -> dict[str, Any]:
        """At most `page_size` objects and prefixes together, in order of their names."""
        found: list[tuple[str, Any]] = []
        asked = (query.get(name, [None])[0] for name in ("prefix", "delimiter"))
        objects, prefixes = self._storage.get_file_list(bucket, *asked)
        found = sorted([(o["name"], o) for o in objects] + [(p, None) for p in prefixes])
        first = int(query.get("pageToken", ["0"])[0])
        last = first + min(self.page_size, int(query.get("maxResults", ["1000"])[0]))
        self.pages += 1
        page: dict[str, Any] = {"kind": "storage#objects"}
        page["items"] = [o for _, o in found[first:last] if o is not None]
        page["prefixes"] = [name for name, o in found[first:last] if o is None]
        return page | ({"nextPageToken": str(last)} if last < len(found) else {})

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json; charset=UTF-8")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    @contextmanager
    def running(self) -> Iterator[GoogleServer]:
        with _serving(self._server):
            yield self
