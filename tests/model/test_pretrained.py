from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from model import pretrained
from model.tokenizer import Tokenizer
from tests.model.conftest import lively, small_config

IDS = torch.arange(40).view(2, 20) * 3


@pytest.mark.parametrize("tied", [True, False])
def test_ours_loads_in_transformers_and_here(tmp_path: Path, tied: bool) -> None:
    model = lively(small_config(tie_word_embeddings=tied))
    pretrained.save(model, tmp_path)
    theirs, found = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not found["missing_keys"] and not found["unexpected_keys"]
    again = pretrained.load(tmp_path)
    assert again.config == model.config and not again.training
    with torch.no_grad():
        expected = model(IDS)
        torch.testing.assert_close(theirs(IDS).logits, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(again(IDS), expected, atol=0, rtol=0)
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == tied


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", ["5GB", "40KB"])
def test_theirs_loads_here(tmp_path: Path, tied: bool, shard: str) -> None:
    torch.manual_seed(0)
    shape = small_config(tie_word_embeddings=tied, rope_theta=1e6).to_hugging_face()
    theirs = Qwen3ForCausalLM(Qwen3Config(**shape)).eval()
    for weight in theirs.parameters():
        weight.data.normal_(std=0.2)
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "40KB")
    model = pretrained.load(tmp_path)
    assert model.config.rope_theta == 1e6
    with torch.no_grad():
        torch.testing.assert_close(model(IDS), theirs(IDS).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokenizer_first", [True, False])
def test_special_ids_are_described(
    tokenizer: Tokenizer, tmp_path: Path, tokenizer_first: bool
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    target = tmp_path / "model"
    steps = [
        lambda: pretrained.copy_tokenizer(tmp_path / "tokenizer", target),
        lambda: pretrained.save(lively(small_config()), target),
    ]
    for step in steps if tokenizer_first else reversed(steps):
        step()
    generation = json.loads((target / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 0] and generation["pad_token_id"] == 3
    config = json.loads((target / "config.json").read_text())
    assert config["eos_token_id"] == 0 and config["pad_token_id"] == 3
    assert Tokenizer.load(target).encode("x") == tokenizer.encode("x")
    assert pretrained.load(target).config == small_config()


def test_broken_folders_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        pretrained.load(tmp_path)
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        pretrained.copy_tokenizer(tmp_path, tmp_path / "target")
    pretrained.save(lively(small_config()), tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    shape = tuple(tensors["model.norm.weight"].shape)
    save_file(tensors | {"model.norm.weight": torch.ones(7)}, weights)
    with pytest.raises(ValueError, match=rf"norm\.weight: found \(7,\), expected \({shape[0]},\)"):
        pretrained.load(tmp_path)
    del tensors["model.norm.weight"]
    save_file(tensors, weights)
    with pytest.raises(ValueError, match=r"model\.norm\.weight: found nothing"):
        pretrained.load(tmp_path)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        pretrained.load(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match="neither"):
        pretrained.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        pretrained.load(tmp_path)
