"""Read a GGUF file of a Qwen3-layout model back into a Transformer, dequantized to float32.

What a quantized model computes is then measured with the same code as any checkpoint. Names and
keys follow the GGUF specification (ggml-org/ggml, docs/gguf.md), architecture `qwen3`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from model.config import ModelConfig
from model.transformer import Transformer

ARCHITECTURE = gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN3]


def load_gguf(path: str | Path) -> Transformer:
    """The model in the file, float32, in evaluation mode.

    A file that is not GGUF, of another architecture, or with other tensors is a ValueError.
    """
    try:
        reader = gguf.GGUFReader(str(path))
    except (OSError, ValueError, IndexError) as error:
        raise ValueError(f"{path} cannot be read as GGUF: {error}") from error
    config = _config(reader, path)
    model = Transformer(config)
    names = _hugging_face_names(config)
    tensors: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name = names.get(tensor.name, tensor.name)
        shape = tuple(int(size) for size in reversed(tensor.shape.tolist()))
        tensors[name] = torch.from_numpy(values.reshape(shape).copy())
    if config.tie_word_embeddings and "model.embed_tokens.weight" in tensors:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"the tensors in {path} are not those of its own shape: {error}"
        ) from error
    return model.eval()


def _config(reader: gguf.GGUFReader, path: str | Path) -> ModelConfig:
    """The model's shape from the file's own metadata."""

    def value(key: str) -> Any:
        found = reader.get_field(key)
        if found is None:
            raise ValueError(
                f"{path} lacks the key {key!r}; expected a {ARCHITECTURE} model in GGUF"
            )
        return found.contents()

    architecture = value("general.architecture")
    if architecture != ARCHITECTURE:
        raise ValueError(f"{path} holds a {architecture!r} model; expected {ARCHITECTURE!r}")
    scaling = reader.get_field("qwen3.rope.scaling.type")
    if scaling is not None and scaling.contents() != "none":
        raise ValueError(
            f"{path} scales its rotary embedding by {scaling.contents()!r}; expected a plain one"
        )
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if "token_embd.weight" not in tensors:
        raise ValueError(f"{path} has no token_embd.weight; expected a language model")
    return ModelConfig(
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        hidden_size=int(value("qwen3.embedding_length")),
        intermediate_size=int(value("qwen3.feed_forward_length")),
        num_hidden_layers=int(value("qwen3.block_count")),
        num_attention_heads=int(value("qwen3.attention.head_count")),
        num_key_value_heads=int(value("qwen3.attention.head_count_kv")),
        head_dim=int(value("qwen3.attention.key_length")),
        max_position_embeddings=int(value("qwen3.context_length")),
        rope_theta=float(value("qwen3.rope.freq_base")),
        rms_norm_eps=float(value("qwen3.attention.layer_norm_rms_epsilon")),
        tie_word_embeddings="output.weight" not in tensors,
    )


def _hugging_face_names(config: ModelConfig) -> dict[str, str]:
    """GGUF tensor name -> our parameter's name, which is Hugging Face's."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config.num_hidden_layers)
    with torch.device("meta"):
        parameters = list(Transformer(config).state_dict())
    names = {}
    for parameter in parameters:
        base = parameter.removesuffix(".weight")
        found = table.get_name(base)
        if found is None:
            raise ValueError(f"the GGUF layout {ARCHITECTURE} has no name for {parameter!r}")
        names[f"{found}.weight"] = parameter
    return names
