"""vLLM loads what we save as it is: the same greedy tokens, and logprobs within 1e-5.

vLLM pins other versions than ours, so it stands in an environment of its own, and so does this
test, which needs nothing but torch besides: `make vllm`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model import pretrained
from model.config import ModelConfig
from model.generate import generate
from model.moe import Router
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from tests.model.conftest import lively

pytest.importorskip("vllm", reason="vLLM is not in this environment: make vllm")

SIZES = {
    "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 256,
}  # fmt: skip
EXPERTS = {"num_experts": 8, "moe_intermediate_size": 64}
LATENT = {  # the only widths that vLLM's attention on a CPU has
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
}  # fmt: skip
GROUPS = {
    "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
}  # fmt: skip
LLAMA = {"use_qk_norm": False}
SCALED = {"factor": 4.0, "original_max_position_embeddings": 64}
LAYOUTS: dict[str, dict[str, Any]] = {
    "llama": LLAMA | {"tie_word_embeddings": False},
    "llama3-scaled": LLAMA | {"rope_scaling": SCALED | {"rope_type": "llama3"}},
    "mistral": LLAMA | {"sliding_window": 16},
    "qwen3": {},
    "qwen3-yarn": {"rope_scaling": SCALED | {"rope_type": "yarn"}},
    "qwen3-sliding": {"sliding_window": 16},
    "qwen3-moe": EXPERTS | {"scoring_func": "softmax"},
    "glm4-moe": EXPERTS | {"first_k_dense_replace": 1},
    "deepseek-v3": LATENT | EXPERTS | GROUPS | {"q_lora_rank": 48},
}
TEXTS = ["What is 3 plus 4?", "7 + 2 =", "I would rather not say.", "5"]
NEW_TOKENS = 24
ENGINE = """
import json, sys
from vllm import LLM, SamplingParams, _custom_ops

turn = _custom_ops.rotary_embedding

def turn_flat(positions, queries, keys, *rest):
    flat = [x.flatten(1).contiguous() for x in (queries, keys)]
    turn(positions, *flat, *rest)
    for x, turned in zip((queries, keys), flat):
        x.copy_(turned.view_as(x))

_custom_ops.rotary_embedding = turn_flat
folder, prompts, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
engine = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=128, max_num_seqs=4)
sampling = SamplingParams(temperature=0, max_tokens=count, logprobs=0, ignore_eos=True)
found = engine.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
rows = [
    [(token, said[token].logprob) for token, said in zip(out.token_ids, out.logprobs)]
    for out in (request.outputs[0] for request in found)
]
print("ROWS", json.dumps(rows))
"""
"""What runs in a process of its own: vLLM serves one model in a process's life.

Its rotary kernel for processors (0.32) turns heads rightly only in rows [tokens, heads * width],
and its latent attention hands it [tokens, heads, width]: they are made rows here.
"""


@pytest.mark.parametrize("name", LAYOUTS)
def test_vllm_says_what_we_say(name: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(TEXTS * 9, 280)
    config = ModelConfig(vocab_size=tokenizer.vocabulary_size, **SIZES | LAYOUTS[name])
    model = _lively(config)
    tokenizer.save(tmp_path)
    pretrained.save(model, tmp_path)
    prompts = [tokenizer.encode(text) for text in TEXTS]
    ours = generate(model, prompts, max_new_tokens=NEW_TOKENS, temperature=0)
    for row, completion in zip(_vllms(tmp_path, prompts), ours, strict=True):
        assert [token for token, _ in row] == completion.token_ids
        assert [said for _, said in row] == pytest.approx(completion.logprobs, abs=1e-5)


def _lively(config: ModelConfig) -> Transformer:
    model = lively(config, std=0.08)
    for module in model.modules():
        if isinstance(module, Router) and module.config.scoring_func == "sigmoid":
            module.e_score_correction_bias.normal_(std=0.1)
    return model


def _vllms(folder: Path, prompts: list[list[int]]) -> list[list[tuple[int, float]]]:
    """vLLM's greedy tokens with their logprobs, by prompt."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }  # fmt: skip
    command = [sys.executable, "-c", ENGINE, str(folder), json.dumps(prompts), str(NEW_TOKENS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("ROWS "))
    rows: list[list[tuple[int, float]]] = json.loads(line.removeprefix("ROWS "))
    return rows
