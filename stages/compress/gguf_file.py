"""Write a Qwen3-layout checkpoint as a GGUF file (`model.gguf_file` reads it back).

The file follows the GGUF specification (ggml-org/ggml, docs/gguf.md) as llama.cpp, Ollama and
OpenVINO GenAI read it: architecture `qwen3`, a `gpt2` byte-level BPE tokenizer with its merges,
token types, and the chat template. Matrices are stored as Q8_0 or F16, norms as F32; a tied output
head is left out (a missing `output.weight` means tied). Two facts the readers insist on: at least
one token of type CONTROL, and rows of Q8_0 matrices a multiple of 32 weights long.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import gguf
import torch
from safetensors.torch import load_file

from cluster.errors import UserError

Format = Literal["Q8_0", "F16"]
BLOCK = 32
"""Weights in a Q8_0 block."""


def write_gguf(checkpoint: Path, path: Path, storage: Format, name: str) -> None:
    """Write the checkpoint folder (config, weights, tokenizer) to the file `path`."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    _check_architecture(config)
    writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN3])
    try:
        _write_hyperparameters(writer, config, storage, name)
        _write_tokenizer(writer, checkpoint, int(config["vocab_size"]))
        _write_tensors(writer, load_weights(checkpoint), config, storage)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def load_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint folder by their Hugging Face names, from one file or many."""
    index = checkpoint / "model.safetensors.index.json"
    if not index.exists():
        return load_file(checkpoint / "model.safetensors")
    files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    weights: dict[str, torch.Tensor] = {}
    for file in files:
        weights |= load_file(checkpoint / file)
    return weights


def _check_architecture(config: dict[str, Any]) -> None:
    architecture = (config.get("architectures") or [config.get("model_type")])[0]
    if architecture not in ("Qwen3ForCausalLM", "qwen3"):
        raise UserError(
            f"quantize found a checkpoint of architecture {architecture!r}; it writes"
            " Qwen3ForCausalLM only: give it a language model that raylm trained or imported"
        )
    if config.get("use_sliding_window"):
        raise UserError(
            f"quantize found a sliding window of {config.get('sliding_window')} tokens; the engine"
            " looks at all tokens: use a checkpoint without sliding_window"
        )
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise UserError(
            f"quantize found a rotary embedding scaled by {rope!r}; the engine reads plain ones"
            " only: use a checkpoint without rope_scaling"
        )


def _gguf_names(layers: int) -> dict[str, str]:
    """Hugging Face parameter name -> GGUF tensor name."""
    bases = ["model.embed_tokens", "model.norm", "lm_head"]
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        bases += [f"{prefix}.self_attn.{part}_proj" for part in "qkvo"]
        bases += [f"{prefix}.self_attn.{part}_norm" for part in "qk"]
        bases += [f"{prefix}.mlp.{part}_proj" for part in ("gate", "up", "down")]
        bases += [f"{prefix}.input_layernorm", f"{prefix}.post_attention_layernorm"]
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, layers)
    names = {}
    for base in bases:
        found = table.get_name(base)
        assert found is not None, base
        names[f"{base}.weight"] = f"{found}.weight"
    return names


def _write_hyperparameters(
    writer: gguf.GGUFWriter, config: dict[str, Any], storage: Format, name: str
) -> None:
    rope = config.get("rope_parameters") or {}
    writer.add_name(name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(float(config.get("rope_theta") or rope.get("rope_theta", 10_000.0)))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    q8 = storage == "Q8_0"
    file_type = gguf.LlamaFileType.MOSTLY_Q8_0 if q8 else gguf.LlamaFileType.MOSTLY_F16
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write_tensors(
    writer: gguf.GGUFWriter,
    weights: dict[str, torch.Tensor],
    config: dict[str, Any],
    storage: Format,
) -> None:
    names = _gguf_names(config["num_hidden_layers"])
    if config.get("tie_word_embeddings"):
        weights.pop("lm_head.weight", None)
    matrix_type = gguf.GGMLQuantizationType[storage]
    for name, weight in weights.items():
        if name not in names:
            raise UserError(f"quantize found a tensor {name!r} that the qwen3 layout does not have")
        values = weight.to(torch.float32).numpy()
        if values.ndim == 1:
            writer.add_tensor(names[name], values)
            continue
        if storage == "Q8_0" and values.shape[1] % BLOCK:
            raise UserError(
                f"{name} has rows of {values.shape[1]} weights; Q8_0 needs a multiple of {BLOCK}:"
                " use format: F16, or a model whose widths are multiples of 32"
            )
        writer.add_tensor(names[name], gguf.quantize(values, matrix_type), raw_dtype=matrix_type)


def _write_tokenizer(writer: gguf.GGUFWriter, checkpoint: Path, rows: int) -> None:
    """The byte-level BPE tokenizer: tokens, types, merges, special ids, chat template."""
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    model = tokenizer["model"]
    if model["type"] != "BPE":
        raise UserError(
            f"quantize found a tokenizer of type {model['type']!r}; GGUF's gpt2 tokenizer is"
            " byte-level BPE: use a model with such a tokenizer"
        )
    tokens = [f"[PAD{number}]" for number in range(rows)]  # embedding rows that no token uses
    types = [gguf.TokenType.UNUSED] * rows
    for text, number in model["vocab"].items():
        tokens[number], types[number] = text, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], kind
    if gguf.TokenType.CONTROL not in types:
        raise UserError(
            "the tokenizer marks no token as special; the engine needs at least one (such as the"
            " end of text): mark it special in tokenizer.json"
        )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_token_merges(merges)
    _write_special_tokens(writer, checkpoint, {text: number for number, text in enumerate(tokens)})


def _write_special_tokens(writer: gguf.GGUFWriter, checkpoint: Path, ids: dict[str, int]) -> None:
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text(encoding="utf-8"))

    def named(role: str) -> int | None:
        value = settings.get(role)
        text = value.get("content") if isinstance(value, dict) else value
        return ids.get(text) if text else None

    end = named("eos_token")
    if end is None:
        raise UserError("tokenizer_config.json names no eos_token of the vocabulary; add one")
    # Chat programs stop at eos: in a chat model that is the end of a turn.
    writer.add_eos_token_id(ids.get("<|im_end|>", end))
    writer.add_bos_token_id(ids.get("<|endoftext|>", end))
    writer.add_add_bos_token(False)
    pad = named("pad_token")
    writer.add_pad_token_id(end if pad is None else pad)
    template_file = checkpoint / "chat_template.jinja"
    template = settings.get("chat_template")
    if template_file.exists():
        template = template_file.read_text(encoding="utf-8")
    if template:
        writer.add_chat_template(_plain(template))


def _plain(template: str) -> str:
    """The template without `{% generation %}`, a training mark that other engines do not know.

    An empty comment stands in its place: it trims white space as the mark did.
    """
    return re.sub(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}", r"{#\1 \2#}", template)
