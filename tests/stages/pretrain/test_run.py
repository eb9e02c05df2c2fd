"""The driver's side: what it refuses before any worker starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.artifact import Artifact
from cluster.errors import UserError
from stages.pretrain import Config
from stages.pretrain.run import run
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
