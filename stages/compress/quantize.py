"""Stage `quantize`: a checkpoint becomes one GGUF file for the CPU engine, llama.cpp and Ollama.

The artifact (kind `quantized`) holds `model.gguf`, `config.json`, the tokenizer files and
`quality.json`. What the smaller weights cost is measured, not assumed: perplexity on the tokens'
held-out part before and after, and how often the served engine picks the float model's token.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.stage import Stage, StageConfig, execution, parent


class Config(StageConfig):
    """What to quantize and how closely to measure what it cost."""

    model: str = parent("checkpoint")
    tokens: str = parent("tokens")
    format: Literal["Q8_0", "F16"] = "Q8_0"
    """Q8_0: blocks of 32 weights, 8 bits each and one float16 scale (8.5 bits a weight)."""
    measured_rows: int = Field(default=128, ge=8, le=100_000)
    """Held-out rows whose perplexity is compared."""
    row_tokens: int = Field(default=256, ge=16, le=8192)
    """Length of a held-out row, in tokens; cut to the model's context."""
    prompts: int = Field(default=8, ge=1, le=256)
    """Held-out prompts continued greedily by the engine and by the float model."""
    prompt_tokens: int = Field(default=32, ge=1, le=1024)
    continuation_tokens: int = Field(default=32, ge=1, le=1024)
    batch_rows: int = execution(16, ge=1)
    """Rows in one forward pass of the measurement."""


STAGE = Stage(
    name="quantize",
    kind="quantized",
    version=1,
    config=Config,
    entry="stages.compress.quantize_run:run",
)
