"""A checkpoint written as GGUF and read back computes the same, up to what the format rounds."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from model import pretrained
from model.config import ModelConfig
from model.gguf_file import load_gguf
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from stages.compress.gguf_file import write_gguf


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=288,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        rope_theta=5000.0,
        tie_word_embeddings=request.param,
    )
    Tokenizer.train(["a few words to learn"], 280).save(tmp_path)
    pretrained.save(Transformer(config), tmp_path)
    return tmp_path


@pytest.mark.parametrize(("storage", "tolerance"), [("F16", 1e-3), ("Q8_0", 3e-2)])
def test_computes_the_same(checkpoint: Path, storage: str, tolerance: float) -> None:
    write_gguf(checkpoint, checkpoint / "model.gguf", storage, "test")
    model, original = load_gguf(checkpoint / "model.gguf"), pretrained.load(checkpoint)
    assert model.config.model_dump() == pytest.approx(original.config.model_dump())
    ids = torch.randint(0, 288, (2, 20))
    with torch.no_grad():
        difference = (model(ids) - original(ids)).abs().max()
    assert 0 < float(difference) < tolerance


def test_weights_are_rounded_by_blocks_as_q8_0_is_defined(checkpoint: Path) -> None:
    write_gguf(checkpoint, checkpoint / "model.gguf", "Q8_0", "test")
    weight = pretrained.load(checkpoint).model.layers[0].mlp.up_proj.weight.detach().numpy()
    blocks = weight.reshape(-1, 32)
    scale = (np.abs(blocks).max(1, keepdims=True) / 127).astype(np.float32)
    rounded = np.round(blocks / scale) * scale.astype(np.float16).astype(np.float32)
    found = load_gguf(checkpoint / "model.gguf").model.layers[0].mlp.up_proj.weight.detach()
    np.testing.assert_allclose(found.numpy().reshape(-1, 32), rounded, atol=1e-6)


def test_a_scaled_rotary_embedding_is_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        header(writer)

    header = gguf.GGUFWriter.write_header_to_file
    monkeypatch.setattr(gguf.GGUFWriter, "write_header_to_file", write)
    write_gguf(checkpoint, checkpoint / "model.gguf", "F16", "test")
    with pytest.raises(ValueError, match="scales its rotary embedding by 'yarn'"):
        load_gguf(checkpoint / "model.gguf")


def test_what_is_not_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"no model at all, only words and nothing else")
    with pytest.raises(ValueError, match="cannot be read as GGUF"):
        load_gguf(tmp_path / "model.gguf")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "model.gguf"), "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="expected 'qwen3'"):
        load_gguf(tmp_path / "model.gguf")
