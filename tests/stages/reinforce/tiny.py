"""A checkpoint so small that a test can train it: two layers, bytes and a few merges."""

from __future__ import annotations

from pathlib import Path

import torch

from model import pretrained
from model.config import ModelConfig
from model.tokenizer import Tokenizer
from model.transformer import Transformer

TEXTS = ["What is 12 + 30? Finish with: answer N.", "answer 42", "user assistant", "def f(x):"]


def tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A randomly initialised model and its tokenizer in Hugging Face's layout."""
    tokenizer = Tokenizer.train(TEXTS * 4, 300)
    tokenizer.save(folder)
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=tokenizer.vocabulary_size, hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    pretrained.save(Transformer(config), folder)
    return folder


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
