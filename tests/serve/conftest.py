"""Models to serve: a checkpoint, and GGUF files of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stages.compress.gguf_file import write_gguf
from tests.serve.tiny_checkpoint import make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 checkpoint folder."""
    return make_checkpoint(tmp_path_factory.mktemp("models") / "checkpoint")


@pytest.fixture(scope="session")
def gguf_f16(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized artifact's folder with F16 weights: what OpenVINO serves."""
    folder = tmp_path_factory.mktemp("gguf") / "tiny-f16"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    write_gguf(checkpoint, folder / "model.gguf", "F16", "tiny-f16")
    return folder
