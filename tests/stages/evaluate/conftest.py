"""A small world of real artifacts: tokenizer, tokens, problems, preferences and tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from model import pretrained
from model.config import ModelConfig
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from stages.tasks.generate import draw_problems
from stages.tasks.multiple_choice import draw_items
from stages.tasks.problem import write_problems
from stages.text.token_shards import TokenWriter

NAMES = ["Mia", "Tom", "李雷", "Ana"]
CITIES = ["Riverton", "Oldtown", "Northport"]


def sentences(seed: int, count: int) -> list[str]:
    random = Random(seed)
    return [
        " ".join(
            f"{random.choice(NAMES)} lives in {random.choice(CITIES)}, no. {random.randint(1, 9)}."
            for _ in range(random.randint(1, 6))
        )
        for _ in range(count)
    ]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.train([*sentences(0, 50), "Question: a\nAnswer: b", "你好"], 320)


@pytest.fixture(scope="session")
def tiny_model(tokenizer: Tokenizer) -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=tokenizer.vocabulary_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
    )
    return Transformer(config).eval()


@pytest.fixture(scope="session")
def tokens_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    for split, seed, count in (("train", 1, 300), ("heldout", 2, 30)):
        writer = TokenWriter(folder / split, tokenizer.vocabulary_size, tokenizer.end_of_text_id)
        for number, text in enumerate(sentences(seed, count)):
            writer.add(str(number), tokenizer.encode(text))
        writer.close()
    tokenizer.save(folder / "tokenizer")
    return folder


@pytest.fixture(scope="session")
def problems_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("problems")
    counts = {"arithmetic": 6, "format": 4, "code": 4}
    problems = [p for s in ("train", "eval") for p in draw_problems(3, split=s, counts=counts)]
    write_problems(folder / "problems.jsonl", problems)
    write_jsonl(folder / "multiple_choice.jsonl", draw_items(3, 12))
    return folder


@pytest.fixture(scope="session")
def preferences_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preferences")
    rows = [
        {"prompt": [{"role": "user", "content": item["question"]}]} for item in draw_items(4, 9)
    ]
    write_jsonl(folder / "heldout.jsonl", rows)
    return folder


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def save_model(
    tiny_model: Transformer, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Save the tiny model, its weights shaken by `noise`, as a checkpoint folder."""

    def save(noise: float = 0.0, seed: int = 0) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        torch.manual_seed(seed)
        shaken = Transformer(tiny_model.config)
        shaken.load_state_dict(tiny_model.state_dict())
        with torch.no_grad():
            for weight in shaken.parameters():
                weight += noise * torch.randn_like(weight)
        tokenizer.save(folder)
        pretrained.save(shaken, folder)
        return folder

    return save
