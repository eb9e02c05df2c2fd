"""The tokens stage: a corpus and a tokenizer in, indexed binary token shards out."""

from __future__ import annotations

from pydantic import Field

from stages.stage import Stage, StageConfig, parent


class Config(StageConfig):
    """What to encode with what."""

    corpus: str = parent("corpus")
    tokenizer: str = parent("tokenizer")
    shard_tokens: int = Field(default=1 << 24, ge=1024)
    """A shard is closed with the document that reaches this many tokens."""


STAGE = Stage(
    name="tokens",
    kind="tokens",
    version=2,
    config=Config,
    entry="stages.tokens.run:run",
)
