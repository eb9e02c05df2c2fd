"""What a model's folder holds decides the engine: `model.gguf` -> OpenVINO, safetensors -> ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import UserError
from model.tokenizer import Tokenizer
from serve.engine import Engine
from serve.text_stream import TokenText

GGUF = "model.gguf"
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
END_TOKENS = ("<|im_end|>", "<|endoftext|>")


@dataclass(frozen=True)
class ServedModel:
    """A model ready to serve: its engine and both directions of its tokenizer."""

    engine: Engine
    tokenizer: Tokenizer
    text: TokenText
    vocabulary_size: int
    """Rows of the embedding: token ids are below."""
    stop_ids: frozenset[int]
    """Tokens that end a completion unless the request ignores them."""


def engine_of(folder: Path) -> str:
    """Which engine: "openvino" or "torch"; a folder that holds no model is a UserError."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give a recipe, an artifact or a folder")
    names = ("config.json", "tokenizer.json")
    missing = [name for name in names if not (folder / name).exists()]
    has_weights = any((folder / name).exists() for name in (GGUF, *SAFETENSORS))
    if missing or not has_weights:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
        raise UserError(
            f"{folder} holds no model: found {there}; expected config.json, tokenizer.json and"
            f" {GGUF} or model.safetensors: serve a checkpoint or a quantized artifact"
        )
    return "openvino" if (folder / GGUF).exists() else "torch"


def load(folder: Path, *, sequences: int, threads: int) -> ServedModel:
    """Load the model of `folder` for `sequences` sequences at once on `threads` threads."""
    engine: Engine
    if engine_of(folder) == "openvino":
        from serve.openvino_engine import OpenVINOEngine

        engine = OpenVINOEngine(folder, max_sequences=sequences, threads=threads)
    else:
        from serve.torch_engine import TorchEngine

        engine = TorchEngine(folder, max_sequences=sequences, threads=threads)
    text = TokenText.load(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return ServedModel(
        engine=engine,
        tokenizer=Tokenizer.load(folder),
        text=text,
        vocabulary_size=int(config["vocab_size"]),
        stop_ids=_stop_ids(folder, config, text),
    )


def _stop_ids(folder: Path, config: dict[str, object], text: TokenText) -> frozenset[int]:
    """The end tokens of the vocabulary, and what the generation config names besides."""
    known = (text.special_id(token) for token in END_TOKENS)
    ids = {number for number in known if number is not None}
    generation = folder / "generation_config.json"
    sources = [config]
    if generation.exists():
        sources.append(json.loads(generation.read_text(encoding="utf-8")))
    for source in sources:
        named = source.get("eos_token_id")
        values = named if isinstance(named, list) else [named]
        ids |= {value for value in values if isinstance(value, int)}
    return frozenset(ids)
