"""Models written and read tensor by tensor; whole ones are in test_pretrained and test_layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from model import pretrained, weight_files
from model.weight_files import WeightFiles, shapes_of
from tests.model import layouts
from tests.model.conftest import lively, small_config


@pytest.mark.parametrize("tied", [True, False])
def test_a_large_model_is_written_in_several_files(
    tmp_path: Path, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively(small_config(tie_word_embeddings=tied))
    monkeypatch.setattr(weight_files, "SHARD_BYTES", 40_000)
    asked: list[str] = []

    def tensor(name: str) -> torch.Tensor:
        asked.append(name)
        return model.state_dict()[name]

    pretrained.save_tensors(model.config, tensor, tmp_path)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == files
    parameters = sum(p.numel() for p in model.parameters())
    assert index["metadata"]["total_size"] == 4 * parameters
    assert len(asked) == len(set(asked)) == len(list(model.parameters()))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = model(ids)
        torch.testing.assert_close(theirs(ids).logits, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pretrained.load(tmp_path)(ids), expected, atol=0, rtol=0)


def test_a_model_written_over_another_is_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.arange(12)[None]
    for shard_bytes in (10**9, 20_000, 40_000, 10**9):
        monkeypatch.setattr(weight_files, "SHARD_BYTES", shard_bytes)
        model = lively(small_config())
        model.model.embed_tokens.weight.data *= 1 + shard_bytes
        pretrained.save(model, tmp_path)
        with torch.no_grad():
            assert torch.equal(pretrained.load(tmp_path)(ids), model(ids))
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]


def test_a_head_beside_a_tied_one_is_refused(tmp_path: Path) -> None:
    """transformers would use it, and so compute something else."""
    pretrained.save(lively(small_config(tie_word_embeddings=False)), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    with pytest.raises(ValueError, match=r"lm_head.weight there is another than model.embed"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize("index", ["{}", "[]", "{broken", '{"weight_map": 3}'])
def test_a_broken_index_is_named(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"index\.json does not say which file holds"):
        WeightFiles(tmp_path, small_config())


@pytest.mark.parametrize("kind", ["deepseek-v3", "qwen3-moe", "qwen3"])
def test_rows_are_read_alone(tmp_path: Path, kind: str) -> None:
    model = layouts.ours(kind)
    pretrained.save(model, tmp_path)
    files = WeightFiles(tmp_path, model.config)
    state = model.state_dict()
    assert files.shapes == shapes_of(model.config)
    assert files.shapes == {name: tuple(value.shape) for name, value in state.items()}
    for name, value in state.items():
        assert torch.equal(files.tensor(name), value), name
        if len(value) > 2:
            assert torch.equal(files.rows(name, 1, len(value) - 1), value[1:-1]), name
