"""Small folders to train on: an untrained model with its tokenizer, and examples."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from model import pretrained
from model.config import ModelConfig
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from stages.recipe import Recipe, load_recipe


def sums(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows that serve as conversation and as preference pair: a sum, answered well and badly."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        a, b = draw.randint(0, 9), draw.randint(0, 9)
        question = {"role": "user", "content": f"What is {a} plus {b}?"}
        answer = {"role": "assistant", "content": f"{a} + {b} = {a + b}."}
        bad = {"role": "assistant", "content": "I would rather not say."}
        rows.append(
            {"messages": [question, answer], "prompt": [question], "chosen": [answer],
             "rejected": [bad]}
        )  # fmt: skip
    return rows


def write_examples(folder: Path) -> Path:
    """An examples folder with every file that the alignment stages read."""
    folder.mkdir(parents=True)
    for name, rows in (
        ("conversations", sums(64, 1)), ("preferences", sums(64, 1)), ("heldout", sums(16, 2))
    ):  # fmt: skip
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def write_model(folder: Path, texts: list[str] | None = None, seed: int = 0) -> Path:
    """A checkpoint folder with a tokenizer of `texts` and an untrained model of two layers."""
    texts = texts or [m["content"] for row in sums(200, 3) for m in row["messages"]]
    tokenizer = Tokenizer.train(texts, 320)
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=tokenizer.vocabulary_size, hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    pretrained.save(Transformer(config), folder)
    return folder


def recipe_from(start: str, folder: Path, vocabulary: int = 260, **base: Any) -> Recipe:
    """A recipe whose pretraining goes on from an imported model."""
    stages = {
        "crawl": {"stage": "examples", "what": "crawl"},
        "corpus": {"stage": "corpus", "crawls": ["crawl"]},
        "tokenizer": {"stage": "tokenizer", "corpus": "corpus", "vocabulary_size": vocabulary},
        "tokens": {"stage": "tokens", "corpus": "corpus", "tokenizer": "tokenizer"},
        "base": {"stage": "pretrain", "tokens": "tokens", "start": start, "steps": 30, **base},
    }
    file = folder / "recipe.yaml"
    file.write_text(json.dumps({"name": "r", "stages": stages}))  # JSON is YAML
    return load_recipe(str(file))
