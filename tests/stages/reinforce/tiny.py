"""A checkpoint so small that a test can train it: two layers, bytes and a few merges."""

from __future__ import annotations

from pathlib import Path

import torch

from model.tokenizer import Tokenizer
from tests.stages.small import write_model

TEXTS = ["What is 12 + 30? Finish with: answer N.", "answer 42", "user assistant", "def f(x):"]


def tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A randomly initialised model and its tokenizer in Hugging Face's layout."""
    return write_model(folder, TEXTS * 4, seed)


def tiny_reward_model(folder: Path, seed: int = 1) -> Path:
    """The same shape as a reward model, written by transformers itself."""
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    tiny_checkpoint(folder, seed)
    config = Qwen3Config.from_pretrained(folder, num_labels=1)
    config.pad_token_id = Tokenizer.load(folder).pad_id
    torch.manual_seed(seed)
    model = Qwen3ForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)
    return folder
