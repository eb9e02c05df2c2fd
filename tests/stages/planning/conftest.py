"""A run to plan: a small model, with what a test changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from model.config import ModelConfig
from stages.planning.run_shape import RunShape
from stages.pretrain import Config


@pytest.fixture
def run_shape() -> Callable[..., RunShape]:
    def build(shape: dict[str, Any] | None = None, **fields: Any) -> RunShape:
        model = ModelConfig(**{"vocab_size": 1024, "num_attention_heads": 8, **(shape or {})})
        config = Config.model_validate(
            {"tokens": "t", "steps": 10, "warmup_steps": 1, "sequence_length": 128,
             "batch_tokens": 128 * 64, **fields}
        )  # fmt: skip
        return RunShape(model, config)

    return build
