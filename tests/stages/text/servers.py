"""Real servers on this machine for tests of remote sources: HTTP with ranges, and S3 (moto's)."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


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
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(5)


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
