"""The driver's side: what it refuses before any worker starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.artifact import Artifact
from cluster.errors import UserError
from stages.pretrain import Config
from stages.pretrain.run import _shape, run
from stages.stage import Context


def test_too_few_tokens_are_the_users_error(
    tmp_path: Path, as_artifact: Callable[..., Artifact], context: Context
) -> None:
    folder = tmp_path / "tokens"
    folder.mkdir()
    (folder / "index.json").write_text(json.dumps({"train_tokens": 20, "vocabulary_size": 64}))
    config = Config(tokens="t", steps=30)
    with pytest.raises(UserError, match="20 training tokens, fewer than one sequence of 256"):
        run(config, {"tokens": as_artifact(folder, "tokens")}, context)


def test_the_dial_and_the_sizes_give_a_shape() -> None:
    dial = Config.model_validate({"tokens": "t", "steps": 30, "model": {"depth": 4}})
    assert _shape(dial, 4096).parameters() == 1_312_128
    wide = {"depth": 4, "intermediate_size": 512}
    mixed = Config.model_validate({"tokens": "t", "steps": 30, "model": wide})
    assert _shape(mixed, 100).intermediate_size == 512
    assert _shape(mixed, 100).vocab_size == 100


def test_a_sequence_beyond_the_context_is_refused() -> None:
    config = Config.model_validate(
        {"tokens": "t", "steps": 30, "model": {"max_position_embeddings": 128}}
    )
    with pytest.raises(ValueError, match="longer than the model's max_position_embeddings 128"):
        _shape(config, 100)
