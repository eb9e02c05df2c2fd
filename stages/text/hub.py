"""Hugging Face datasets by name or local folder: which files hold a split.

`datasets` resolves names, subsets, patterns and revisions to files; these are then read like any
other, file by file, so that rows have a place (file, row) and a killed run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from stages.text.files import FileInfo, is_remote


def dataset_files(
    name: str, subset: str | None = None, split: str = "train", revision: str | None = None
) -> list[FileInfo]:
    """The files of one split, in the dataset's order.

    `name` is a dataset on the hub ("HuggingFaceFW/fineweb"), a folder of data files (with or
    without a card), or a folder that `Dataset.save_to_disk` wrote.
    """
    folder = Path(name).expanduser()
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_text("utf-8"))["splits"]
        if split not in splits:
            raise _no_split(name, split, splits)
        folder = folder / split
    if (folder / "state.json").is_file():
        state = json.loads((folder / "state.json").read_text("utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
        return [FileInfo(str(folder / n), n, (folder / n).stat().st_size) for n in names]
    return _resolved(name, subset, split, revision)


def _resolved(name: str, subset: str | None, split: str, revision: str | None) -> list[FileInfo]:
    import datasets

    folder = Path(name).expanduser().resolve()

    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(name, subset, revision=revision)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UserError(
            f"dataset {name!r} is neither a folder here nor found on the hub ({error});"
            " check the name, and for a gated one give HF_TOKEN in the environment"
        ) from error
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        told = f"dataset {name!r} cannot be opened: {str(error)[:400]}"
        if datasets.config.HF_HUB_OFFLINE:
            told += "; a run is offline by default: set HF_HUB_OFFLINE=0 and HF_DATASETS_OFFLINE=0"
        raise UserError(told) from error
    files: Mapping[str, Any] = builder.config.data_files or {}
    if split not in files:
        raise _no_split(name, split, list(files))
    return [_info(str(url), folder) for url in files[split]]


def _no_split(name: str, split: str, known: list[str]) -> UserError:
    return UserError(
        f"dataset {name!r} has no split {split!r}; it has {', '.join(map(str, known))}"
    )


def _info(url: str, folder: Path) -> FileInfo:
    if not is_remote(url):
        path = Path(url).resolve()
        inside = path.is_relative_to(folder)
        name = path.relative_to(folder).as_posix() if inside else path.name
        return FileInfo(str(path), name, path.stat().st_size)
    # hf://datasets/owner/name@commit/path: the commit in it stands for the content.
    return FileInfo(url, url.partition("@")[2].partition("/")[2] or url, 0, url)
