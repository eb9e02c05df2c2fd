"""A rank of a divided model never holds more than its part, and begins with the right weights."""

from __future__ import annotations

import ctypes
import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from cluster.watch import Watch
from model import pretrained
from model.config import ModelConfig
from model.transformer import Transformer
from stages.pretrain import Config
from stages.pretrain.data import TrainingSet, folders_of
from stages.pretrain.worker import Worker
from stages.tune import allocation
from stages.tune.checkpoint import slice_of
from stages.tune.fragments import WEIGHT
from tests.dist import ranks
from tests.dist.shapes import Shape, config, name

pytestmark = pytest.mark.dist

LARGE = ModelConfig(
    vocab_size=4096, hidden_size=512, intermediate_size=2048, num_hidden_layers=16,
    num_attention_heads=8, num_key_value_heads=8, head_dim=64,
)  # fmt: skip
M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""
MODEL_BYTES = 4 * LARGE.parameters()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ranks.write_tokens(tmp_path_factory.mktemp("tokens"))


def _begin(job: dict[str, Any], folder: str | None) -> None:
    """Make a worker as training does; check its weights against `folder`'s, note its memory once
    weights have theirs, and once all is there to train.
    """
    made = Config.model_validate(job["config"])
    data = TrainingSet(made, folders_of(job["tokens"]), job["seed"])
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)  # what is freed is given back
    before, grown = _most(), []
    take_part = allocation._take_part

    def noted(*inputs: Any) -> None:
        take_part(*inputs)
        grown.append(_most() - before)

    allocation._take_part = noted
    watch = Watch(Path(job["scratch"]), dist.get_rank(), dist.get_world_size())
    worker = Worker(made, job, data, watch)
    grown.append(_most() - before)
    (Path(job["scratch"]) / f"grown-{dist.get_rank()}.json").write_text(json.dumps(grown))
    if folder is not None:
        expected = pretrained.load(folder).state_dict()
        for piece in worker.memory.held:
            whole = slice_of(expected[piece.name], piece.split).reshape(-1)
            assert torch.equal(piece.view(piece.flat), whole[piece.start : piece.stop]), piece.name
            assert piece.kind in (None, WEIGHT)


def _job(parallel: Shape, tokens: Path, scratch: Path, shape: ModelConfig) -> dict[str, Any]:
    scratch.mkdir(parents=True)
    return {
        "config": config(parallel).model_dump(mode="json"), "shape": shape.model_dump(),
        "seed": 5, "tokens": str(tokens / "train"), "heldout": str(tokens / "heldout"),
        "scratch": str(scratch),
    }  # fmt: skip


def _most() -> int:
    """The most memory that this process ever had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize(
    ("parallel", "part"),
    [
        ({"workers": 8, "zero": 3}, 1 / 8),
        ({"workers": 2, "tensor": 2, "zero": 0}, 1 / 2),
        ({"workers": 8, "tensor": 2, "zero": 3}, 1 / 8),
        ({"workers": 4, "pipeline": 4, "zero": 0}, 1 / 4),
    ],
    ids=["zero3", "tensor", "tensor-zero3", "pipeline"],
)
def test_no_rank_ever_has_more_of_a_model_than_its_part(
    parallel: Shape, part: float, tokens: Path, tmp_path: Path
) -> None:
    """Its weights, one weight that is being divided, the embedding; then gradients and states."""
    job = _job(parallel, tokens, tmp_path / "run", LARGE)
    ranks.run(parallel["workers"], _begin, job, None, log=tmp_path / "log")
    notes = [json.loads(p.read_text()) for p in sorted((tmp_path / "run").glob("grown-*"))]
    grown = [[round(size / MODEL_BYTES, 3) for size in note] for note in notes]
    print(name(parallel), grown)
    assert max(weights for weights, _ in grown) < part + 0.15
    assert max(everything for _, everything in grown) < 1


@pytest.mark.parametrize(
    "parallel",
    [
        {"workers": 2, "zero": 1},
        {"workers": 2, "zero": 3},
        {"workers": 4, "tensor": 2, "zero": 3},
        {"workers": 2, "pipeline": 2, "zero": 1},
        {"workers": 2, "sequence": 2, "zero": 0},
    ],
    ids=name,
)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_every_shape_begins_with_a_folders_weights(
    parallel: Shape, tied: bool, tokens: Path, tmp_path: Path
) -> None:
    shape = ModelConfig(
        vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, tie_word_embeddings=tied,
    )  # fmt: skip
    pretrained.save(Transformer(shape), tmp_path / "model")
    job = _job(parallel, tokens, tmp_path / "run", shape) | {"start": str(tmp_path / "model")}
    ranks.run(parallel["workers"], _begin, job, str(tmp_path / "model"), log=tmp_path / "log")
