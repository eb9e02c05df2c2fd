"""ZeRO over several ranks: the losses of one rank, and checkpoints that load at another size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.trainer import run_workers
from stages.pretrain import Config
from stages.pretrain.loop import train
from stages.text.token_shards import TokenWriter
from stages.tune.journal import read_journal

pytestmark = pytest.mark.dist

SHAPE = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for split in ("train", "heldout"):
        writer = TokenWriter(tmp_path / "tokens" / split, vocabulary_size=60, end_of_text=0)
        for i in range(60):
            writer.add(str(i), draw.integers(4, 60, draw.integers(5, 60)).tolist())
        writer.close()
    return tmp_path / "tokens"


def _train(tokens: Path, scratch: Path, workers: int, zero: int, steps: int) -> list[float]:
    config = Config.model_validate(
        {"tokens": "t", "steps": steps, "warmup_steps": 2, "batch_tokens": 128,
         "sequence_length": 16, "learning_rate": 1e-2,
         "parallel": {"rows": 3, "workers": workers, "zero": zero}}
    )  # fmt: skip
    job: dict[str, Any] = {
        "config": config.model_dump(mode="json"), "shape": SHAPE, "seed": 5,
        "tokens": str(tokens / "train"), "heldout": str(tokens / "heldout"),
        "scratch": str(scratch),
    }  # fmt: skip
    run_workers(train, job, workers=workers, scratch=scratch, name="zero", threads=1)
    return [line["loss"] for line in read_journal(scratch)]


def test_two_ranks_lose_what_one_does_and_hand_over(
    ray_session: None, tokens: Path, tmp_path: Path
) -> None:
    alone = _train(tokens, tmp_path / "one", workers=1, zero=1, steps=10)
    both = _train(tokens, tmp_path / "two", workers=2, zero=1, steps=6)
    # 6 steps decay from step 4 on: ten steps continue from there, on one rank and another stage
    handed_over = _train(tokens, tmp_path / "two", workers=1, zero=2, steps=10)
    assert both[:4] == pytest.approx(alone[:4], abs=1e-5)
    assert handed_over == pytest.approx(alone, abs=1e-5)
