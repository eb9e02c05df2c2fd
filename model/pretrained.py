"""Save and load in Hugging Face's layout: config.json, model.safetensors, generation_config.json.

A folder written here loads in transformers; a folder of any layout in `model.layouts` loads here.
Experts stand in files one by one, as published models have them, and in memory stacked.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.config import ModelConfig
from model.layouts import layout
from model.tokenizer import TOKENIZER_FILES, Tokenizer
from model.transformer import Transformer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HEAD = "lm_head.weight"
READ_A_HEAD = ("glm4_moe", "deepseek_v3")
"""Layouts of which vLLM reads a head also where it is tied, and without one serves noise."""
STACKED = re.compile(r"(.+\.mlp\.experts)\.(gate_up_proj|down_proj)")
SINGLE = re.compile(r"(.+\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")
LAYER = re.compile(r"model\.layers\.(\d+)\.")


def save(model: Transformer, folder: str | Path) -> None:
    """Write the model, float32. A tied head is written as the embedding, in some layouts twice."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
    }
    if model.config.tie_word_embeddings:
        head = tensors.pop(HEAD)
        if layout(model.config) in READ_A_HEAD:
            tensors[HEAD] = head.clone()
    save_file(split_experts(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    _write_json(folder / "config.json", model.config.to_hugging_face())
    _describe_special_tokens(folder)


def load(folder: str | Path, *, device: str = "cpu") -> Transformer:
    """A Transformer, float32, in evaluation mode, from a folder of safetensors files.

    A missing file, a wrong architecture or shape, or a lacking or surplus tensor is a ValueError.
    """
    folder = Path(folder)
    model = Transformer(read_config(folder))
    tensors = {
        name: tensor
        for path in _weight_files(folder)
        for name, tensor in _read(path)
        if _is_ours(name, model.config)
    }
    tensors = stack_experts(tensors)
    if model.config.tie_word_embeddings and "model.embed_tokens.weight" in tensors:
        tensors[HEAD] = tensors["model.embed_tokens.weight"]
    _check_tensors(folder, model, tensors)
    model.load_state_dict(tensors)
    return model.to(device).eval()


def split_experts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stacked experts as single matrices, by the names that published models give them."""
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not (found := STACKED.fullmatch(name)):
            split[name] = tensor
            continue
        for expert, matrix in enumerate(tensor):
            pieces = matrix.chunk(2) if found[2] == "gate_up_proj" else (matrix,)
            kinds = ("gate", "up") if len(pieces) == 2 else ("down",)
            for kind, piece in zip(kinds, pieces, strict=True):
                split[f"{found[1]}.{expert}.{kind}_proj.weight"] = piece.contiguous()
    return split


def stack_experts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_experts`; a lacking expert is a ValueError."""
    stacked: dict[str, Tensor] = {}
    single: dict[str, dict[tuple[str, int], Tensor]] = {}
    for name, tensor in tensors.items():
        if found := SINGLE.fullmatch(name):
            single.setdefault(found[1], {})[found[3], int(found[2])] = tensor
        else:
            stacked[name] = tensor
    for prefix, matrices in single.items():
        count = 1 + max(expert for _, expert in matrices)
        try:
            gate, up, down = (
                torch.stack([matrices[kind, expert] for expert in range(count)])
                for kind in ("gate", "up", "down")
            )
        except KeyError as error:
            kind, expert = error.args[0]
            raise ValueError(
                f"the weights lack {prefix}.{expert}.{kind}_proj.weight; expected every expert up "
                f"to {count - 1}"
            ) from error
        stacked[f"{prefix}.gate_up_proj"] = torch.cat((gate, up), 1)
        stacked[f"{prefix}.down_proj"] = down
    return stacked


def _is_ours(name: str, config: ModelConfig) -> bool:
    """Not a layer behind the last (DeepSeek's prediction of several tokens), not a rotary table."""
    layer = LAYER.match(name)
    behind = layer is not None and int(layer[1]) >= config.num_hidden_layers
    return not behind and not name.endswith("rotary_emb.inv_freq")


def read_config(folder: str | Path) -> ModelConfig:
    """The shape of the model in a folder, without its weights."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no config.json; expected a Hugging Face model folder")
    try:
        return ModelConfig.from_hugging_face(json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def copy_tokenizer(source: str | Path, target: str | Path) -> None:
    """Put one folder's tokenizer into another, and its ids into that one's generation_config."""
    source, target = Path(source), Path(target)
    target.mkdir(parents=True, exist_ok=True)
    if not (source / "tokenizer.json").is_file():
        raise ValueError(f"{source} has no tokenizer.json; expected a folder with a tokenizer")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    _describe_special_tokens(target)


def _describe_special_tokens(folder: Path) -> None:
    """Write generation_config.json, with the ids of the folder's tokenizer where it has one.

    config.json gets them too (engines that read only that must know where a reply ends).
    """
    generation: dict[str, Any] = {"do_sample": True, "temperature": 1.0}
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.load(folder)
        ids = {"eos_token_id": tokenizer.stop_ids, "pad_token_id": tokenizer.pad_id}
        generation |= ids
        if (folder / "config.json").is_file():
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            ids = {"eos_token_id": tokenizer.end_of_text_id, "pad_token_id": tokenizer.pad_id}
            _write_json(folder / "config.json", config | ids)
    _write_json(folder / "generation_config.json", generation)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return [folder / Path(name).name for name in sorted(set(index["weight_map"].values()))]
    raise ValueError(f"{folder} has neither {WEIGHTS} nor {INDEX}; expected a model in safetensors")


def _read(path: Path) -> list[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return [(name, file.get_tensor(name).float()) for name in file.keys()]  # noqa: SIM118
    except Exception as error:  # safetensors has its own exception, and files fail in many ways
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error


def _check_tensors(folder: Path, model: Transformer, tensors: dict[str, Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = [
        f"{name}: found {found.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if wrong:
        raise ValueError(
            f"the weights in {folder} do not fit its config.json, in {len(wrong)} tensors: "
            + "; ".join(wrong[:5])
        )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
