"""The bytes of a file behind its compression, member by member, with where each member begins.

Crawl archives compress every record as a gzip member (or zstd, lz4 frame) of its own, so that one
can be fetched alone. `Members` reads through them with a buffer, knows at which byte of the file a
member begins, stops at a broken one saying why, and finds the next sound one behind it. Plain files
are read the same way. Nothing larger than the buffer is held.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections import deque
from typing import Any, BinaryIO

import lz4.frame
from backports import zstd

_CHUNK = 1 << 16
_OUT = 1 << 18
_ERRORS = (zlib.error, zstd.ZstdError, lzma.LZMAError, RuntimeError, EOFError, ValueError, OSError)
_PADDING = b"\0\r\n"  # what some writers put between members
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_DICTIONARY = b"\x5d\x2a\x4d\x18"  # the .warc.zst specification keeps a dictionary in front


class _Gzip:
    """zlib's decompressor with the interface that the other four share."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(31)
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(out) < max_length and not self._zlib.unconsumed_tail
        return out

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


_CODECS: dict[str, tuple[re.Pattern[bytes], Any]] = {
    "gzip": (re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"), _Gzip),
    "zstd": (
        re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.S),
        zstd.ZstdDecompressor,
    ),
    "lz4": (re.compile(rb"\x04\x22\x4d\x18"), lz4.frame.LZ4FrameDecompressor),
    "xz": (re.compile(rb"\xfd7zXZ\x00"), lzma.LZMADecompressor),
    "bz2": (re.compile(rb"BZh[1-9]"), bz2.BZ2Decompressor),
}


class Members:
    """A buffered reader over a seekable binary file, compressed or not.

    Errors of the file itself (a lost connection, a failing disk) are raised as they come; errors of
    the compression end the stream and stand in `broken`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)
        self._input = file.read(_CHUNK)
        self._input_end = len(self._input)
        self.codec = next((n for n, (m, _) in _CODECS.items() if m.match(self._input)), None)
        self._options: dict[str, Any] = {}
        self._decoder: Any = None
        self._buffer = bytearray()
        self._at = 0
        self._out_end = 0
        self._ended = False
        self._shared = False
        self._starts: deque[tuple[int, int]] = deque()
        self.position = 0
        """Bytes handed out so far."""
        self.broken: str | None = None
        """What is wrong with the member that ended the stream."""
        self.member_at = 0
        """The byte of the file where the member that is being read begins."""
        if self.codec == "zstd" and self._input.startswith(_ZSTD_DICTIONARY):
            self._take_dictionary()

    def _take_dictionary(self) -> None:
        size = int.from_bytes(self._input[4:8], "little")
        while len(self._input) < 8 + size and self._more_input():
            pass
        content, self._input = self._input[8 : 8 + size], self._input[8 + size :]
        if content.startswith(_ZSTD):
            content = zstd.ZstdDecompressor().decompress(content, 64 << 20)
        self._options = {"zstd_dict": zstd.ZstdDict(content)}

    def _more_input(self) -> bool:
        data = self._file.read(_CHUNK)
        self._input += data
        self._input_end += len(data)
        return bool(data)

    def _fill(self) -> bool:
        """Put some more bytes into the buffer; False at the end and before a broken place."""
        if self._at > _CHUNK:
            del self._buffer[: self._at]
            self._at = 0
        if self.codec is None:
            data, self._input = self._input or self._file.read(_CHUNK), b""
            self._buffer += data
            return bool(data)
        while not self._ended:
            if self._decoder is None and not self._begin_member():
                return False
            feed, self._input = self._input, b""
            if not feed and self._decoder.needs_input and not self._more_input():
                return self._break(f"the file ends inside a {self.codec} member")
            feed, self._input = feed or self._input, b""
            try:
                out = self._decoder.decompress(feed, _OUT)
            except _ERRORS as error:
                return self._break(f"{self.codec}: {error}")
            if self._decoder.eof:
                self._input, self._decoder = self._decoder.unused_data or b"", None
            if out:
                self._buffer += out
                self._out_end += len(out)
                return True
        return False

    def _begin_member(self) -> bool:
        self._input = self._input.lstrip(_PADDING)
        while len(self._input) < 8 and self._more_input():
            self._input = self._input.lstrip(_PADDING)
        if not self._input:
            self._ended = True
            return False
        self.member_at = self._input_end - len(self._input)
        magic, make = _CODECS[self.codec or ""]
        if not magic.match(self._input):
            return self._break(f"no {self.codec} member begins here")
        self._decoder = make(**self._options)
        if self._starts and self._starts[-1][0] == self._out_end:
            self._starts.pop()  # an empty member before this one
        self._starts.append((self._out_end, self.member_at))
        return True

    def _break(self, why: str) -> bool:
        self.broken, self._ended, self._decoder = why, True, None
        return False

    def have(self, size: int) -> int:
        """How many bytes lie ready, after filling up to `size` of them if there are so many."""
        while len(self._buffer) - self._at < size and self._fill():
            pass
        return len(self._buffer) - self._at

    def peek(self, size: int) -> bytes:
        """Up to `size` bytes that stay where they are."""
        self.have(size)
        return bytes(self._buffer[self._at : self._at + size])

    def take(self, size: int) -> bytes:
        """Up to `size` bytes: fewer only at the end, or before a broken place."""
        taken = self.peek(size)
        self._at += len(taken)
        self.position += len(taken)
        return taken

    def give_back(self, data: bytes) -> None:
        """Put bytes that were just taken back in front."""
        self._buffer[: self._at] = data
        self._at = 0
        self.position -= len(data)

    def line(self, limit: int = 1 << 16) -> bytes:
        """Bytes up to and with the next line's end, at most `limit` of them."""
        searched = 0
        while True:
            end = self._buffer.find(b"\n", self._at + searched)
            if end >= 0 or len(self._buffer) - self._at >= limit:
                break
            searched = len(self._buffer) - self._at
            if not self._fill():
                break
        return self.take(min(limit, (end + 1 if end >= 0 else len(self._buffer)) - self._at))

    @property
    def offset(self) -> int:
        """Where the next byte lies: in the file where a member begins there or nothing is
        compressed; else, and for the rest of the file, behind the compression.
        """
        self.have(1)
        while len(self._starts) > 1 and self._starts[1][0] <= self.position:
            self._starts.popleft()
        if self.codec is None:
            return self.position
        if self._starts and self._starts[0][0] == self.position and not self._shared:
            return self._starts[0][1]
        if self.broken is not None and not self.have(1):
            return self.member_at
        self._shared = True
        return self.position

    def block(self, length: int, keep: int, begin: re.Pattern[bytes]) -> tuple[bytes, int]:
        """Pass `length` bytes: (the first `keep` of them, how many there were).

        Fewer at the end, before a broken place, and where a member begins with `begin`, for no
        record reaches into the member of the next.
        """
        kept, done = bytearray(), 0
        while done < length:
            step = min(length - done, _CHUNK)
            ready = min(self.have(step), step)
            border = self._border(ready, begin)
            part = self.take(ready if border is None else border)
            kept += part[: max(0, keep - done)]
            done += len(part)
            if border is not None or not part:
                break
        return bytes(kept), done

    def _border(self, size: int, begin: re.Pattern[bytes]) -> int | None:
        """How far a member that begins with `begin` lies ahead, if less than `size` bytes."""
        for start, _ in list(self._starts):
            ahead = start - self.position
            if 0 <= ahead < size:
                head = self.peek(ahead + 512)[ahead:]
                if begin.match(head):
                    return ahead
        return None

    def pass_to(self, begin: re.Pattern[bytes]) -> int:
        """Pass bytes up to the next line that matches `begin`, or to the end; how many."""
        passed = 0
        while True:
            while (found := begin.search(self._buffer, self._at)) is not None:
                before = found.start() - self._at
                first = found.start() == 0 or passed + before == 0
                if first or self._buffer[found.start() - 1] in b"\r\n" or self._is_start(before):
                    return passed + len(self.take(before))
                passed += len(self.take(before))
                passed += len(self.take(1))
            rest = max(0, len(self._buffer) - self._at - 512)
            passed += len(self.take(rest))
            if not self._fill():
                return passed + len(self.take(1 << 30))

    def _is_start(self, ahead: int) -> bool:
        return any(start == self.position + ahead for start, _ in self._starts)

    def pass_blank(self) -> None:
        """Pass the line ends between records."""
        while (ahead := self.peek(64)) and (rest := ahead.lstrip(b"\r\n")) != ahead:
            self.take(len(ahead) - len(rest))

    def ends_well(
        self, offset: int, begin: re.Pattern[bytes], separator: tuple[bytes, ...]
    ) -> bool:
        """Whether what comes next may follow the record that began at `offset`: its separator,
        another record, or the end, and no broken checksum of the record's own member.
        """
        ahead = self.peek(1 << 10)
        rest = ahead.lstrip(b"\r\n")
        if not rest and self.broken is not None:
            return ahead.startswith(separator) and self.member_at != offset
        return not rest or ahead.startswith(separator) or begin.match(rest) is not None

    def mend(self, begin: re.Pattern[bytes]) -> int:
        """Go on at the next member whose bytes match `begin`; how many of the file were passed."""
        magic, make = _CODECS[self.codec or ""]
        lost_at, at = self.member_at, self.member_at + 1
        self._buffer.clear()
        self._at = 0
        while True:
            self._file.seek(at)
            window = self._file.read(1 << 20)
            for found in magic.finditer(window, 0, max(0, len(window) - 8)):
                if self._sound(at + found.start(), make, begin):
                    self._restart(at + found.start())
                    return at + found.start() - lost_at
            if len(window) < 1 << 20:
                self.broken = None
                return at + len(window) - lost_at
            at += len(window) - 16

    def _sound(self, at: int, make: Any, begin: re.Pattern[bytes]) -> bool:
        self._file.seek(at)
        try:
            head = make(**self._options).decompress(self._file.read(_CHUNK), 512)
        except _ERRORS:
            return False  # bytes that only look like a member's beginning
        return begin.match(head) is not None

    def _restart(self, at: int) -> None:
        self._file.seek(at)
        self._input, self._input_end = b"", at
        self._ended, self.broken, self._decoder = False, None, None
        self._out_end = self.position
        self._starts.clear()
