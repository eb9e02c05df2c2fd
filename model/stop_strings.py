"""Where a completion ends by what it says, not by a token: strings that may cross tokens."""

from __future__ import annotations

from collections.abc import Sequence

from model.tokenizer import Tokenizer


class StopStrings:
    """Looks for strings in the text of token ids, each time a row got one more.

    Only the last tokens are decoded: enough to hold the longest string, of which a token brings at
    least one byte.
    """

    def __init__(self, strings: Sequence[str], tokenizer: Tokenizer | None) -> None:
        if strings and tokenizer is None:
            raise ValueError(
                f"stop strings {list(strings)} without a tokenizer; give the tokenizer that the "
                "prompts were made with, or stop_ids"
            )
        if "" in strings:
            raise ValueError("a stop string is empty; expected at least one character")
        self._strings, self._tokenizer = tuple(strings), tokenizer
        longest = max((len(string.encode()) for string in strings), default=0)
        self.reach = longest + 1 if longest else 0
        """How many of a row's last tokens decide; 0 where there is nothing to look for."""

    def ended(self, rows: Sequence[Sequence[int]]) -> list[bool]:
        """Whether the newest token of each row (its last `reach` tokens) completed a string."""
        assert self._tokenizer is not None
        texts = (self._tokenizer.decode(row) for row in rows)
        return [any(string in text for string in self._strings) for text in texts]


def before_stop(text: str, strings: Sequence[str]) -> str:
    """The text up to the first stop string in it, or all of it."""
    ends = [text.find(string) for string in strings]
    return text[: min((end for end in ends if end >= 0), default=len(text))]
