"""`raylm import` of Hugging Face folders: what our decoder computes comes in, the rest is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.artifact import verify
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


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_size": "abc"}, "config.json: hidden_size: found 'abc', expected a whole number"),
        ({"head_dim": 7.5}, "config.json: head_dim: found 7.5, expected a whole number"),
        ({"hidden_size": -4}, "config.json: hidden_size: found -4, expected greater than 0"),
        ({"rope_theta": "far"}, "config.json: rope_theta: found 'far', expected a valid number"),
        ({"num_key_value_heads": 3}, "config.json: num_key_value_heads is 3; it must divide"),
    ],
)
def test_a_size_that_is_none_is_named_in_one_sentence(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    source = folder(tmp_path / "llama", LLAMA | change)
    with pytest.raises(UserError) as caught:
        import_artifact(LocalStore(tmp_path / "store"), source, "start")
    said = str(caught.value)
    assert sentence in said and "\n" not in said and "pydantic" not in said


def test_a_configuration_that_is_no_object_is_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "llama", LLAMA)
    (source / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json holds list, expected a model's JSON object"):
        import_artifact(LocalStore(tmp_path / "store"), source, "start")


def test_importing_again_mends_what_is_damaged(tmp_path: Path) -> None:
    store, source = LocalStore(tmp_path / "store"), folder(tmp_path / "llama", LLAMA)
    first = import_artifact(store, source, "start")
    weights = first.path / "model.safetensors"
    for damage in (b"", b"\x02\x00\x00\x00\x00\x00\x00\x00[]"):
        weights.write_bytes(damage)
        assert import_artifact(store, source, "start").id == first.id
        assert weights.read_bytes() == (source / "model.safetensors").read_bytes()
    (first.path / "manifest.json").write_text("{")
    import_artifact(store, source, "start")
    assert not verify(store.get(first.id))


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
