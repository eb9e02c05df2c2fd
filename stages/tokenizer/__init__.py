"""The tokenizer stage: a byte-level BPE learned from a sample of the corpus."""

from __future__ import annotations

from pydantic import Field

from stages.stage import Stage, StageConfig, execution, parent


class Config(StageConfig):
    """How large the vocabulary is, and how much text it is learned from."""

    corpus: str = parent("corpus")
    vocabulary_size: int = Field(default=4096, ge=260, le=1 << 22)
    """Tokens in all: 256 bytes, the special ones, and what is learned."""
    sample_bytes: int = Field(default=64 << 20, gt=0)
    """Learn from at most this much UTF-8, each language's share as in the corpus."""
    min_language_share: float = Field(default=0.2, ge=0, le=1)
    """A language rarer than this is sampled up to it, as far as its text reaches."""
    beside: str | None = execution(None)
    """A tokenizer.json made elsewhere, whose compression of the same text is measured too."""


STAGE = Stage(
    name="tokenizer",
    kind="tokenizer",
    version=1,
    config=Config,
    entry="stages.tokenizer.run:run",
)
