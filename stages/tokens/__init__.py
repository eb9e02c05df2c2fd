"""The tokens stage: a corpus and a tokenizer in, indexed binary token shards out."""

from __future__ import annotations

from pydantic import Field

from stages.stage import Stage, StageConfig, execution, parent


class Config(StageConfig):
    """What to encode with what."""

    corpus: str = parent("corpus")
    tokenizer: str = parent("tokenizer")
    shard_tokens: int = Field(default=1 << 24, ge=1024)
    """A shard is closed with the document that reaches this many tokens."""
    workers: int | None = execution(None, ge=0)
    """Ray actors that encode the corpus's files; as many as cores if not given; 0, or a corpus of
    one file, works in this process, without Ray.
    """


STAGE = Stage(
    name="tokens",
    kind="tokens",
    version=2,
    config=Config,
    entry="stages.tokens.run:run",
)
