"""`raylm import` of Hugging Face folders: what our decoder computes comes in, the rest is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.storage import LocalStore
from model.pretrained import read_config
from stages.importing import import_artifact


def folder(path: Path, config: dict[str, object]) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    return path


LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 60,
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 128,
}  # fmt: skip


def test_a_llama_folder_becomes_a_checkpoint(tmp_path: Path) -> None:
    source = folder(tmp_path / "llama", LLAMA)
    artifact = import_artifact(LocalStore(tmp_path / "store"), source, "start")
    assert artifact.kind == "checkpoint"
    assert read_config(artifact.path).num_hidden_layers == 1


def test_another_kind_of_model_is_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "bert", {"model_type": "bert", "architectures": ["BertModel"]})
    with pytest.raises(UserError, match="bert"):
        import_artifact(LocalStore(tmp_path / "store"), source, "start")
