"""Token ids back to text while they stream: whole characters only, and stop strings honoured.

A byte-level BPE token may end in the middle of a character, and a stop string may span tokens. Both
are held back until they are decided, so what has been sent never has to be taken back.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's reversible map: printable bytes stand for themselves, the rest from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}


class TokenText:
    """The bytes behind each token of a byte-level BPE tokenizer; special tokens are empty."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        table = _bytes_of_characters()
        self._bytes: dict[int, bytes] = {}
        self._special: dict[str, int] = {}
        for text, number in tokenizer.get_vocab(with_added_tokens=False).items():
            if all(character in table for character in text):
                self._bytes[number] = bytes(table[character] for character in text)
            else:
                self._bytes[number] = text.encode()
        for number, added in tokenizer.get_added_tokens_decoder().items():
            self._bytes[number] = b"" if added.special else added.content.encode()
            if added.special:
                self._special[added.content] = number

    @classmethod
    def load(cls, folder: Path) -> TokenText:
        """From a folder with a tokenizer.json."""
        return cls(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")))

    def special_id(self, text: str) -> int | None:
        """The id of a special token by its text; None when the vocabulary has no such token."""
        return self._special.get(text)

    def bytes_of(self, token_id: int) -> bytes:
        """The token's bytes; a row of the embedding that no token uses has none."""
        return self._bytes.get(token_id, b"")

    def text(self, token_ids: Iterable[int]) -> str:
        """The text of a whole sequence; broken bytes become U+FFFD."""
        return b"".join(map(self.bytes_of, token_ids)).decode("utf-8", errors="replace")


class TextStream:
    """The text of one streamed completion. After `stopped` is set nothing more may be pushed."""

    def __init__(self, tokens: TokenText, stop: Sequence[str] = ()) -> None:
        self._tokens = tokens
        self._stop = [text for text in stop if text]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def push(self, token_ids: Iterable[int]) -> str:
        """Text that is certain after these tokens; up to the first stop string, which is cut."""
        for token_id in token_ids:
            self._held += self._decoder.decode(self._tokens.bytes_of(token_id))
        return self._release(certain_only=True)

    def finish(self) -> str:
        """What was still held back when the completion ended."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(b"", final=True)
        return self._release(certain_only=False)

    def _release(self, certain_only: bool) -> str:
        found = [self._held.find(text) for text in self._stop]
        places = [place for place in found if place >= 0]
        if places:
            self.stopped = True
            text, self._held = self._held[: min(places)], ""
            return text
        keep = self._possible_stop() if certain_only else 0
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def _possible_stop(self) -> int:
        """Length of the longest tail that may still grow into a stop string."""
        longest = max((len(text) for text in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(text.startswith(tail) for text in self._stop):
                return length
        return 0
