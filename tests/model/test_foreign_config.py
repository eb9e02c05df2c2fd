"""Files that others wrote, or edited: the logits of transformers, or a refusal that says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING

from model import pretrained
from model.config import ModelConfig
from model.foreign_config import UNSAID
from tests.model import layouts

SIZES = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
}


@pytest.mark.parametrize("kind", sorted(UNSAID))
def test_a_silent_file_is_what_transformers_takes_it_for(kind: str) -> None:
    silent = {"model_type": kind, **SIZES}
    if kind == "glm4_moe":
        silent["partial_rotary_factor"] = 1.0
    whole = CONFIG_MAPPING[kind](**silent).to_dict()
    assert ModelConfig.from_hugging_face(silent) == ModelConfig.from_hugging_face(whole)


@pytest.mark.parametrize("kind", ["qwen3", "qwen3_moe"])
def test_windows_of_a_silent_file(kind: str) -> None:
    silent = {"model_type": kind, **SIZES, "use_sliding_window": True}
    whole = CONFIG_MAPPING[kind](**silent).to_dict()
    found = ModelConfig.from_hugging_face(silent)
    assert found == ModelConfig.from_hugging_face(whole)
    assert found.windows[-1] == 4096


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
EDITS: dict[str, dict[str, Any]] = {
    "a scaling beside what the newer name says": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "rope_scaling": YARN,
    },
    "two thetas": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
        "rope_theta": 1e4,
    },
    "the older name alone": {
        "rope_parameters": None,
        "rope_theta": 2e4,
        "rope_scaling": {"type": "linear", "factor": 2.0},
    },
    "the trained length at the top": {
        "rope_parameters": YARN | {"rope_theta": 1e4},
        "original_max_position_embeddings": 8,
    },
    "no factor but two lengths": {
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": None,
            "rope_theta": 1e4,
            "original_max_position_embeddings": 8,
        },
        "max_position_embeddings": 40,
    },
    "no beta": {"rope_parameters": YARN | {"rope_theta": 1e4, "beta_fast": 0}},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_file_computes_what_transformers_does(
    edit: dict[str, Any], tmp_path: Path
) -> None:
    pretrained.save(layouts.ours("qwen3"), tmp_path)
    path = tmp_path / "config.json"
    plain = json.loads(path.read_text())
    ids = layouts.batch()
    with torch.no_grad():
        before = pretrained.load(tmp_path)(ids)
        path.write_text(json.dumps(plain | edit))
        found, expected = pretrained.load(tmp_path)(ids), layouts.theirs(tmp_path)(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found - before).abs().max() > 0.01  # what was edited matters


def test_experts_whose_heads_divide_the_width(tmp_path: Path) -> None:
    """Qwen3-MoE's configuration has no head_dim of its own, and Qwen3's 128 is not its default."""
    config = CONFIG_MAPPING["qwen3_moe"](
        vocab_size=160, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, moe_intermediate_size=16, num_experts=8,
        num_experts_per_tok=2,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    torch.manual_seed(0)
    from transformers import Qwen3MoeForCausalLM

    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    ids = layouts.batch()
    with torch.no_grad():
        found, expected = pretrained.load(tmp_path)(ids), layouts.theirs(tmp_path)(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"rope_parameters": {"rope_type": "linear"}}, "by linear and gives no factor"),
        ({"rope_scaling": "linear"}, "of another kind than its place is for"),
        ({"num_attention_heads": 0, "head_dim": None}, "of another kind|greater than 0"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"model_type": ["llama"]}, "of another kind than its place is for"),
        ({"rope_theta": 1, "rope_parameters": None}, "rope_theta"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "sets partial_rotary_factor"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2, "mscale_all_dim": 1}},
            "they are YaRN's",
        ),
        ({"mlp_bias": True, "attention_bias": True}, "sets attention_bias, mlp_bias"),
        ({"hidden_act": "gelu"}, "sets hidden_act"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(edit: dict[str, Any], message: str) -> None:
    written = layouts.shape("llama-grouped").to_hugging_face()
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_hugging_face(written | edit)


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="of another kind than its place is for"):
        ModelConfig.from_hugging_face([])  # type: ignore[arg-type]
