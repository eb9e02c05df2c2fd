"""Save and load in Hugging Face's layout: config.json, model.safetensors, generation_config.json.

A folder written here loads in transformers; a folder of any layout in `model.layouts` loads here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from model.config import ModelConfig
from model.hollow import hollow, take_memory
from model.tokenizer import TOKENIZER_FILES, Tokenizer
from model.transformer import Transformer
from model.weight_files import WeightFiles, write_weights


def save(model: Transformer, folder: str | Path) -> None:
    """Write the model, float32."""
    tensors = model.state_dict()
    save_tensors(model.config, tensors.__getitem__, folder)


def save_tensors(config: ModelConfig, tensor: Callable[[str], Tensor], folder: str | Path) -> None:
    """Write a model that is not in memory: `tensor` gives each of its tensors by name."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, config, tensor)
    _write_json(folder / "config.json", config.to_hugging_face())
    _describe_special_tokens(folder)


def load(folder: str | Path, *, device: str = "cpu") -> Transformer:
    """A Transformer, float32, in evaluation mode, from a folder of safetensors files.

    A missing file, a wrong architecture or shape, or a lacking or surplus tensor is a ValueError.
    """
    config = read_config(folder)
    files = WeightFiles(folder, config)
    model = hollow(lambda: Transformer(config), device)
    take_memory(model, device)
    for name, value in model.state_dict().items():
        value.copy_(files.tensor(name))
    return model.eval()


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


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
