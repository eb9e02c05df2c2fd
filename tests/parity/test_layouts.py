"""Every layout against transformers, PEFT and TRL."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from model import pretrained
from model.tokenizer import Tokenizer
from tests.model import layouts
from tests.model.conftest import TEXTS, lively

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", layouts.NAMES)
def test_gradients(name: str, tmp_path: Path) -> None:
    layouts.check_gradients(name, tmp_path)


@pytest.mark.parametrize("name", layouts.NAMES)
def test_greedy_generation(name: str, tmp_path: Path) -> None:
    layouts.check_greedy(name, tmp_path)


@pytest.mark.parametrize("name", ["llama-grouped", "qwen3", "qwen3-moe", "glm4-moe", "deepseek-v3"])
def test_trl_trains_it_as_is(name: str, tmp_path: Path) -> None:
    """A folder of ours, by name, through TRL's own trainer; what it saves loads here."""
    tokenizer = Tokenizer.train(TEXTS * 20, 600)
    config = layouts.shape(name).model_copy(update={"vocab_size": tokenizer.vocabulary_size})
    pretrained.save(lively(config, std=0.02), tmp_path / "ours")
    tokenizer.save(tmp_path / "tokenizer")
    pretrained.copy_tokenizer(tmp_path / "tokenizer", tmp_path / "ours")
    settings = SFTConfig(
        output_dir=str(tmp_path / "trl"), max_steps=8, learning_rate=1e-2, use_cpu=True, bf16=False,
        gradient_checkpointing=False, per_device_train_batch_size=4, report_to="none",
        save_strategy="no", logging_steps=1, max_length=64,
    )  # fmt: skip
    trainer = SFTTrainer(
        str(tmp_path / "ours"), settings, train_dataset=Dataset.from_dict({"text": TEXTS * 8})
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.2
    trainer.save_model(str(tmp_path / "trained"))
    assert pretrained.load(tmp_path / "trained").config == config
