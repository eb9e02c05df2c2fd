"""A small decoder and its twin in transformers, and a tokenizer, for all tests of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen3ForCausalLM

from model import pretrained
from model.config import ModelConfig
from model.tokenizer import Tokenizer
from model.transformer import Transformer

TEXTS = [
    "The capital of France is Paris. It's 1234 kilometres from here, isn't it?\n\n",
    "def add(a, b):\n    return a + b  # 12 + 30 = 42\n",
    "法国的首都是巴黎。我们在这里学习语言模型,一共有一百二十个。你好,世界!",
    "Wörter mit Umlauten, emoji 🙂, tabs\t and trailing spaces   \n",
]


def small_config(**changes: object) -> ModelConfig:
    shape = {
        "vocab_size": 160,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    return ModelConfig.model_validate(shape | changes)


def lively(config: ModelConfig, seed: int = 0, std: float = 0.2) -> Transformer:
    """A model with weights large enough that attention, norms and the head all matter."""
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.uniform_(0.5, 1.5)
            else:
                weight.normal_(std=std)
    return model


@pytest.fixture
def model() -> Transformer:
    return lively(small_config())


@pytest.fixture
def twin(model: Transformer, tmp_path: Path) -> Qwen3ForCausalLM:
    """The same model, loaded by transformers from our files."""
    pretrained.save(model, tmp_path / "twin")
    return Qwen3ForCausalLM.from_pretrained(tmp_path / "twin", dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS * 20, 600)
