"""The shape of answers: whole ones and stream chunks, for completions and for chat."""

from __future__ import annotations

from typing import Any

from serve.completion import Choice, Job, Piece
from serve.openai_api import head, usage
from serve.text_stream import TokenText


class CompletionAnswers:
    """Answers of /v1/completions."""

    def __init__(self, model: str, text: TokenText, logprobs: bool) -> None:
        self._model = model
        self._text = text
        self._logprobs = logprobs

    def whole(self, job: Job, choices: list[Choice]) -> dict[str, Any]:
        """The answer of a request that does not stream."""
        listed = [
            self._choice(index, choice.text, choice, choice.finish_reason)
            for index, choice in enumerate(choices)
        ]
        counts = usage(job.prompt_tokens, job.completion_tokens)
        return self._head(job) | {"choices": listed, "usage": counts}

    def opening(self, job: Job) -> list[dict[str, Any]]:
        """Completions begin with their first piece."""
        return []

    def chunk(self, job: Job, piece: Piece) -> dict[str, Any]:
        """One piece of a stream."""
        choice = self._choice(piece.index, piece.text, piece, piece.finish_reason)
        return self._head(job) | {"choices": [choice]}

    def usage_chunk(self, job: Job) -> dict[str, Any]:
        """The last chunk of a stream that asked for its usage."""
        counts = usage(job.prompt_tokens, job.completion_tokens)
        return self._head(job) | {"choices": [], "usage": counts}

    def _head(self, job: Job) -> dict[str, Any]:
        return head(job.id, "text_completion", job.created, self._model)

    def _choice(
        self, index: int, text: str, tokens: Choice | Piece, finish: str | None
    ) -> dict[str, Any]:
        logprobs = None
        if self._logprobs:
            names = [_shown(self._text.bytes_of(number)) for number in tokens.token_ids]
            logprobs = {
                "tokens": names,
                "token_logprobs": list(tokens.logprobs),
                "top_logprobs": None,
                "text_offset": _offsets(names),
            }
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


class ChatAnswers:
    """Answers of /v1/chat/completions."""

    def __init__(self, model: str, text: TokenText, logprobs: bool) -> None:
        self._model = model
        self._text = text
        self._logprobs = logprobs

    def whole(self, job: Job, choices: list[Choice]) -> dict[str, Any]:
        """The answer of a request that does not stream."""
        listed = [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": self._listed(choice),
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(choices)
        ]
        counts = usage(job.prompt_tokens, job.completion_tokens)
        answer = head(job.id, "chat.completion", job.created, self._model)
        return answer | {"choices": listed, "usage": counts}

    def opening(self, job: Job) -> list[dict[str, Any]]:
        """Each choice first says whose turn it is."""
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(job, index, delta, None, None) for index in range(len(job.requests))]

    def chunk(self, job: Job, piece: Piece) -> dict[str, Any]:
        """One piece of a stream."""
        delta = {"content": piece.text} if piece.text or piece.finish_reason is None else {}
        return self._chunk(job, piece.index, delta, self._listed(piece), piece.finish_reason)

    def usage_chunk(self, job: Job) -> dict[str, Any]:
        """The last chunk of a stream that asked for its usage."""
        counts = usage(job.prompt_tokens, job.completion_tokens)
        answer = head(job.id, "chat.completion.chunk", job.created, self._model)
        return answer | {"choices": [], "usage": counts}

    def _chunk(
        self,
        job: Job,
        index: int,
        delta: dict[str, str],
        logprobs: dict[str, Any] | None,
        finish: str | None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return head(job.id, "chat.completion.chunk", job.created, self._model) | {
            "choices": [choice]
        }

    def _listed(self, tokens: Choice | Piece) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        entries = []
        for number, logprob in zip(tokens.token_ids, tokens.logprobs, strict=True):
            raw = self._text.bytes_of(number)
            entries.append(
                {
                    "token": _shown(raw),
                    "logprob": logprob,
                    "bytes": list(raw),
                    "top_logprobs": [],
                }
            )
        return {"content": entries, "refusal": None}


def _shown(raw: bytes) -> str:
    """A token as text; half a character is U+FFFD (its bytes are beside it in chat answers)."""
    return raw.decode("utf-8", errors="replace")


def _offsets(names: list[str]) -> list[int]:
    """Where each token begins, in characters of this piece."""
    offsets, place = [], 0
    for name in names:
        offsets.append(place)
        place += len(name)
    return offsets
