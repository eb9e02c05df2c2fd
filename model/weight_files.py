"""Weights in Hugging Face's layout, tensor by tensor: a model need never be in memory to pass.

Experts stand in files one by one, as published models have them, and here stacked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.config import ModelConfig
from model.layouts import layout
from model.transformer import Transformer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
WRITTEN = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
SHARD_BYTES = 5_000_000_000
"""More than that goes to several files (transformers' long-standing max_shard_size)."""
HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"
READ_A_HEAD = ("glm4_moe", "deepseek_v3")
"""Layouts of which vLLM reads a head also where it is tied, and without one serves noise."""
STACKED = re.compile(r"(.+\.mlp\.experts)\.(gate_up_proj|down_proj)")
TIED_ROWS = 4096
"""Of a tied table and its copy, compared at once."""
KINDS = {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)}
"""What a stack holds of each expert, one below the other."""
LAYER = re.compile(r"model\.layers\.(\d+)\.")
Shape = tuple[int, ...]


def shapes_of(config: ModelConfig) -> dict[str, Shape]:
    """Every tensor of a model by our name: weights, a tied head too, and persistent buffers."""
    with torch.device("meta"):
        return {
            name: tuple(value.shape) for name, value in Transformer(config).state_dict().items()
        }


class WeightFiles:
    """A folder's tensors by our names, float32 on the CPU, read when asked for.

    Raises ValueError where a file is missing or broken, or tensors do not fit `config`.
    """

    def __init__(
        self, folder: str | Path, config: ModelConfig, *, compare_head: bool = True
    ) -> None:
        """`compare_head`: read a tied head that stands there too, and the table, for whether they
        are equal."""
        self.folder = Path(folder)
        self._tied = config.tie_word_embeddings
        self._slices: dict[str, Any] = {}
        for path in weight_files(self.folder):
            self._slices |= _open(path)
        self._slices = {name: s for name, s in self._slices.items() if _is_ours(name, config)}
        self.shapes = shapes_of(config)
        self._check()
        if compare_head:
            self._check_tied()

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Rows [first, last) of a tensor; of stacked experts, that many experts."""
        if name == HEAD and self._tied:
            name = TABLE
        if not (found := STACKED.fullmatch(name)):
            return self._slices[name][first:last].float()
        kinds = KINDS[found[2]]
        return torch.stack(
            [
                torch.cat(
                    [self._slices[single_name(found[1], e, kind)][:].float() for kind in kinds]
                )
                for e in range(first, last)
            ]
        )

    def tensor(self, name: str) -> Tensor:
        return self.rows(name, 0, self.shapes[name][0])

    def _check(self) -> None:
        found = {name: tuple(s.get_shape()) for name, s in self._slices.items()}
        stacked = {name: torch.empty(shape, device="meta") for name, shape in self.shapes.items()}
        expected = {name: tuple(value.shape) for name, value in split_experts(stacked).items()}
        if self._tied and HEAD not in found:
            del expected[HEAD]
        wrong = [
            f"{name}: found {found.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}"
            for name in sorted(expected.keys() | found.keys())
            if expected.get(name) != found.get(name)
        ]
        if wrong:
            raise ValueError(
                f"the weights in {self.folder} do not fit its config.json, in {len(wrong)} "
                "tensors: " + "; ".join(wrong[:5])
            )

    def _check_tied(self) -> None:
        """A head of its own beside `tie_word_embeddings` is one that transformers would use."""
        if not self._tied or HEAD not in self._slices:
            return
        head, table = self._slices[HEAD], self._slices[TABLE]
        rows = self.shapes[TABLE][0]
        for first in range(0, rows, TIED_ROWS):
            part = slice(first, first + TIED_ROWS)
            if not torch.equal(head[part], table[part]):
                raise ValueError(
                    f"config.json in {self.folder} says tie_word_embeddings, but {HEAD} there is "
                    f"another than {TABLE}: set tie_word_embeddings to false, or take the head out"
                )


def write_weights(folder: Path, config: ModelConfig, tensor: Callable[[str], Tensor]) -> None:
    """Write a model whose tensors `tensor` gives by our names, float32, a file at a time.

    A tied head is not asked for: it is written as the embedding, in some layouts twice.
    """
    shapes = shapes_of(config)
    tied = config.tie_word_embeddings
    if tied and layout(config) not in READ_A_HEAD:
        del shapes[HEAD]
    files = _files(shapes)
    index: dict[str, str] = {}
    for number, names in enumerate(files, 1):
        file = WEIGHTS if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
        sources = {name: TABLE if tied and name == HEAD else name for name in names}
        # a copy of each: two names of one tensor cannot stand in one file
        tensors = {
            name: tensor(source).detach().to("cpu", torch.float32, copy=True)
            for name, source in sources.items()
        }
        tensors = {name: value.contiguous() for name, value in split_experts(tensors).items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
    if len(files) > 1:
        size = sum(4 * torch.Size(shape).numel() for shape in shapes.values())
        written = {"metadata": {"total_size": size}, "weight_map": index}
        (folder / INDEX).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    _clear(folder, keep=set(index.values()))


def _clear(folder: Path, keep: set[str]) -> None:
    """Take out the weights of a model written here before, in one file or in others."""
    if len(keep) == 1:
        (folder / INDEX).unlink(missing_ok=True)
    for path in folder.glob("model*.safetensors"):
        if path.name not in keep and WRITTEN.fullmatch(path.name):
            path.unlink()


def _files(shapes: Mapping[str, Shape]) -> list[list[str]]:
    """Names in order, as many to a file as its size allows, at least one."""
    files: list[list[str]] = [[]]
    room = SHARD_BYTES
    for name, shape in shapes.items():
        size = 4 * torch.Size(shape).numel()
        if size > room and files[-1]:
            files.append([])
            room = SHARD_BYTES
        files[-1].append(name)
        room -= size
    return files


def single_name(prefix: str, expert: int, kind: str) -> str:
    """The name that published models give one expert's matrix."""
    return f"{prefix}.{expert}.{kind}_proj.weight"


def split_experts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stacked experts as single matrices, by their names in files."""
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not (found := STACKED.fullmatch(name)):
            split[name] = tensor
            continue
        kinds = KINDS[found[2]]
        for expert, matrix in enumerate(tensor):
            for kind, piece in zip(kinds, matrix.chunk(len(kinds)), strict=True):
                split[single_name(found[1], expert, kind)] = piece
    return split


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            named = sorted({Path(name).name for name in index["weight_map"].values()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{folder / INDEX} does not say which file holds which weight: {error!r}"
            ) from error
        return [folder / name for name in named]
    raise ValueError(f"{folder} has neither {WEIGHTS} nor {INDEX}; expected a model in safetensors")


def _open(path: Path) -> dict[str, Any]:
    """A file's tensors by name, not yet read."""
    try:
        file = safe_open(path, framework="pt")
        return {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has its own exception, and files fail in many ways
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error


def _is_ours(name: str, config: ModelConfig) -> bool:
    """Not a layer behind the last (DeepSeek's prediction of several tokens), not a rotary table."""
    layer = LAYER.match(name)
    behind = layer is not None and int(layer[1]) >= config.num_hidden_layers
    return not behind and not name.endswith("rotary_emb.inv_freq")
