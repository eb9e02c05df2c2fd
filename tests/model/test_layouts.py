"""Every layout's logits against transformers, and a sample of the rest; `make parity` does all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from model import pretrained
from model.config import ModelConfig
from tests.model import layouts


@pytest.mark.parametrize("name", layouts.NAMES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    layouts.check_round_trip(name, tmp_path)


@pytest.mark.parametrize("name", layouts.SAMPLE)
def test_gradients(name: str, tmp_path: Path) -> None:
    layouts.check_gradients(name, tmp_path)


@pytest.mark.parametrize("name", layouts.SAMPLE)
def test_greedy_generation(name: str, tmp_path: Path) -> None:
    layouts.check_greedy(name, tmp_path)


# A dynamic rotary embedding is one of the whole row's length, so pieces and documents differ.
@pytest.mark.parametrize("name", [n for n in layouts.NAMES if n != "qwen3-dynamic"])
def test_cache_and_documents(name: str) -> None:
    layouts.check_cache(name)
    layouts.check_documents(name)


@pytest.mark.parametrize("name", ["deepseek-v3", "qwen3-moe"])
def test_peft_adapts_it_as_is(name: str, tmp_path: Path) -> None:
    pretrained.save(layouts.ours(name), tmp_path)
    twin = layouts.theirs(tmp_path)
    ids = layouts.batch()
    with torch.no_grad():
        before = twin(ids).logits
    adapted = get_peft_model(twin, LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, before, atol=1e-5, rtol=1e-5)
    adapted(ids, labels=ids).loss.backward()
    gradients = [p.grad for n, p in adapted.named_parameters() if "lora_B" in n]
    assert gradients and all(g is not None and g.abs().max() > 0 for g in gradients)
    merged = adapted.merge_and_unload()
    again = pretrained.Transformer(ModelConfig.from_hugging_face(merged.config.to_dict()))
    again.load_state_dict(merged.state_dict())


def test_experts_stand_in_files_one_by_one(tmp_path: Path) -> None:
    model = layouts.ours("deepseek-v3")
    pretrained.save(model, tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    experts = model.model.layers[1].mlp.experts
    up = tensors["model.layers.1.mlp.experts.6.up_proj.weight"]
    width = model.config.moe_intermediate_size
    torch.testing.assert_close(up, experts.gate_up_proj[6, width:])
    torch.testing.assert_close(
        tensors.pop("model.layers.1.mlp.experts.3.down_proj.weight"), experts.down_proj[3]
    )
    save_file(tensors, weights)
    with pytest.raises(ValueError, match=r"experts\.3\.down_proj\.weight: found nothing"):
        pretrained.load(tmp_path)


def test_layers_behind_the_last_and_rotary_tables_are_left(tmp_path: Path) -> None:
    """DeepSeek-V3's files hold a layer that predicts several tokens; old Llamas' their tables."""
    model = layouts.ours("deepseek-v3")
    pretrained.save(model, tmp_path)
    weights = tmp_path / "model.safetensors"
    extra = {
        "model.layers.3.eh_proj.weight": torch.ones(3),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3),
    }
    save_file(load_file(weights) | extra, weights)
    assert pretrained.load(tmp_path).config == model.config


def test_published_configurations_are_understood() -> None:
    """The parts that matter of config.json files as their makers published them."""
    sizes = {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
    }
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }
    llama = sizes | {"model_type": "llama", "rope_scaling": scaling, "rope_theta": 500000.0}
    found = ModelConfig.from_hugging_face(json.loads(json.dumps(llama)))
    assert found.head_dim == 128 and not found.use_qk_norm and not found.tie_word_embeddings
    assert found.rope_scaling is not None and found.rope_scaling.rope_type == "llama3"
    assert found.parameters() == 8_030_261_248  # Llama 3.1 8B
    deepseek = {
        "model_type": "deepseek_v3",
        "vocab_size": 129280,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "n_shared_experts": 1,
        "n_routed_experts": 256,
        "routed_scaling_factor": 2.5,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "n_group": 8,
        "topk_group": 4,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 3,
        "norm_topk_prob": True,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "tie_word_embeddings": False,
    }
    found = ModelConfig.from_hugging_face(deepseek)
    # 671B, of which 37B meet a token (arXiv:2412.19437); the report's 37B leave out the embedding.
    assert round(found.parameters() / 1e9) == 671
    assert round(found.parameters(active=True, embedding=False) / 1e9) == 37
    assert found.kv_bytes_per_token(2) == 70272  # 70 KB: arXiv:2505.09343, table 1
    with pytest.raises(ValueError, match="sets quantization_config"):
        ModelConfig.from_hugging_face(deepseek | {"quantization_config": {"quant_method": "fp8"}})
