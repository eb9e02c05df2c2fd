"""The OpenAI wire format: requests as checked types, answers and errors as plain dictionaries.

Only what the engines can honour is accepted: a parameter that would be silently ignored and change
the answer (penalties, tools, best_of ...) is refused with a 400 that names it.
Format: OpenAI API reference, /v1/completions and /v1/chat/completions.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

MAX_CHOICES = 16


class ApiError(Exception):
    """An answer in OpenAI's error form, with its HTTP status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After` when waiting helps, `WWW-Authenticate` when a key does."""
        if self.status in (429, 503):
            return {"Retry-After": "1"}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}


class StreamOptions(BaseModel):
    """What a stream says besides its pieces."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Sampling(BaseModel):
    """What completions and chat share; a `Literal` field is accepted at its neutral value only."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    model: str
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: StopText | list[StopText] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    presence_penalty: Literal[0] = 0
    frequency_penalty: Literal[0] = 0
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, body: Any) -> Any:
        """OpenAI's reference lets every optional parameter be null, and clients send it."""
        if not isinstance(body, dict):
            return body
        fields = cls.model_fields
        return {
            key: value
            for key, value in body.items()
            if value is not None or key not in fields or fields[key].is_required()
        }

    def stop_texts(self) -> list[str]:
        """The stop strings as a list; OpenAI allows four."""
        texts = [self.stop] if isinstance(self.stop, str) else list(self.stop or [])
        if len(texts) > 4:
            raise ApiError(400, f"stop: found {len(texts)} strings, at most 4", param="stop")
        return texts

    def usage_wanted(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(Sampling):
    """POST /v1/completions; a prompt is text or token ids, one or several."""

    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: int = Field(default=16, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=1)
    """0 or 1: the chosen token's log-probability; the engine knows no alternatives."""
    echo: Literal[False] = False
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None

    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list, texts or lists of token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        texts = [prompt for prompt in self.prompt if isinstance(prompt, str)]
        ids = [prompt for prompt in self.prompt if isinstance(prompt, list)]
        flat = [number for number in self.prompt if isinstance(number, int)]
        return texts or ids or [flat]


class TextPart(BaseModel):
    """A piece of a message's content; only text is understood."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: None = None

    def plain(self) -> dict[str, str]:
        """Role and text, as the chat template takes them."""
        text = self.content
        if not isinstance(text, str):
            text = "".join(part.text for part in text)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ResponseFormat(BaseModel):
    """Free text only."""

    type: Literal["text"]


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: Literal[0] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    response_format: ResponseFormat | None = None


AnyRequest = TypeVar("AnyRequest", bound=BaseModel)


def parse(kind: type[AnyRequest], body: bytes) -> AnyRequest:
    """The request in `body`; anything wrong is a 400 that names the parameter."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as problem:
        faults = problem.errors()
        first, path = faults[0], _path(faults[0]["loc"])
        param = str(first["loc"][0]) if first["loc"] else None
        if first["type"] == "extra_forbidden":
            raise ApiError(400, f"unrecognized parameter: {path}", param=path) from None
        if first["type"] == "json_invalid":
            raise ApiError(400, f"the body is not valid JSON: {first['msg']}") from None
        where = f"{path}: " if path else ""
        said = [
            fault["msg"] for fault in faults if f"{_path(fault['loc'])}.".startswith(f"{path}.")
        ]
        expected = " or ".join(
            dict.fromkeys(text.removeprefix("Input should be ") for text in said)
        )
        begin = "Input should be " if said[0].startswith("Input should be ") else ""
        raise ApiError(400, f"{where}{begin}{expected}", param=param) from None


def _path(place: tuple[int | str, ...]) -> str:
    """Where a fault lies in the body, without the names of the types that a union tried."""
    tried = ("str", "constrained-str")
    return ".".join(str(part) for part in place if part not in tried and "[" not in str(part))


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Token counts of a whole request."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def head(request_id: str, kind: str, created: int, model: str) -> dict[str, Any]:
    """The fields every answer and chunk begins with; `created` is in Unix seconds."""
    return {"id": request_id, "object": kind, "created": created, "model": model}


def model_list(name: str, created: int, context_tokens: int) -> dict[str, Any]:
    """GET /v1/models."""
    entry = {"id": name, "object": "model", "created": created, "owned_by": "raylm"}
    return {"object": "list", "data": [entry | {"max_model_len": context_tokens}]}
