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


def test_pickled_lost_and_broken_weights_are_refused(tmp_path: Path) -> None:
    store, source = LocalStore(tmp_path / "store"), folder(tmp_path / "llama", LLAMA)
    whole = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read as safetensors"):
        import_artifact(store, source, "start")
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    files = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = source / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    with pytest.raises(UserError, match=r"lacks model-00002-of-00002\.safetensors, of 2 files"):
        import_artifact(store, source, "start")
    index.write_text("[]")
    with pytest.raises(UserError, match=r"index\.json does not say which file holds which"):
        import_artifact(store, source, "start")
    (source / "model-00001-of-00002.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pickled weights \(\*\.bin\) are not read"):
        import_artifact(store, source, "start")
