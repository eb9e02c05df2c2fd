"""Encodes the corpus file by file, each committed by a rename, in as many actors as there are.

A killed run finds the files already encoded in `context.scratch`. The shards of all files together
are the artifact's `train/` and `heldout/`: source by source, in the corpus's order.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

from cluster import session
from cluster.errors import UserError
from cluster.stream import stream
from cluster.took import TOOK, Clock, total
from model.tokenizer import Tokenizer
from stages.stage import Context, Inputs, Metrics, StageConfig, one
from stages.text.documents import Document, document_files, read_file, source_name
from stages.text.token_shards import TokenWriter, join_shards
from stages.tokens import Config

SPLITS = ("train", "heldout")
_BATCH_DOCUMENTS = 256


def run(config: StageConfig, inputs: Inputs, context: Context) -> Metrics:
    """Write `train/`, `heldout/`, `tokenizer/` and `index.json` into `context.out`."""
    config = cast(Config, config)
    source = one(inputs, "tokenizer").path
    tokenizer = Tokenizer.load(source)
    files = document_files(one(inputs, "corpus").path)
    begun = time.time()
    done, workers = _encode(files, source, config, context)
    totals: Metrics = {"vocabulary_size": tokenizer.vocabulary_size}
    for split in SPLITS:
        shards = join_shards([folder / split for folder in done], context.out / split)
        totals[f"{split}_tokens"] = shards.tokens
        totals[f"{split}_documents"] = shards.documents
        totals[f"{split}_bytes"] = sum(_sizes(folder)[split] for folder in done)
    if not totals["train_tokens"]:
        raise UserError(f"the corpus {files[0].parent} holds no training text: nothing to encode")
    shutil.copytree(
        source, context.out / "tokenizer", ignore=shutil.ignore_patterns("manifest.json")
    )
    (context.out / "index.json").write_text(json.dumps(totals, indent=1), encoding="utf-8")
    work = total([folder / TOOK for folder in done], workers, begun)
    return totals | {
        "bytes_per_token": round(totals["train_bytes"] / totals["train_tokens"], 4),
        "work": {"workers": workers, "files": work},
    }


def _encode(
    files: Sequence[Path], tokenizer: Path, config: Config, context: Context
) -> tuple[list[Path], int]:
    """(the folder of each file's shards, made now or by a run before; how many actors worked)."""
    waiting = [file for file in files if not (context.scratch / file.stem).exists()]
    workers = 0
    if config.workers != 0 and len(waiting) > 1:
        context.connect()
        workers = config.workers or session.cores_in_reach()
    make = partial(FileEncoder, tokenizer, config.shard_tokens, context.scratch)
    weights = [float(file.stat().st_size) for file in waiting]
    for count, _ in enumerate(stream(make, waiting, workers, weights)):
        context.progress(len(files) - len(waiting) + count + 1, len(files), "files")
    return [context.scratch / file.stem for file in files], workers


class FileEncoder:
    """Holds the tokenizer, and encodes one file of the corpus after the other."""

    def __init__(self, tokenizer: Path, shard_tokens: int, out: Path) -> None:
        self.tokenizer = Tokenizer.load(tokenizer)
        self.shard_tokens = shard_tokens
        self.out = out

    def __call__(self, file: Path) -> str:
        """Commit the shards of both splits; returns the folder's name."""
        clock, temporary = Clock(), self.out / f"{file.stem}.part-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        writers = {
            split: TokenWriter(
                temporary / split, self.tokenizer.vocabulary_size, self.tokenizer.end_of_text_id,
                self.shard_tokens, file.name,
            )
            for split in SPLITS
        }  # fmt: skip
        sizes = dict.fromkeys(SPLITS, 0)
        for documents in _batches(read_file(file)):
            encoded = self.tokenizer.encode_batch([document.text for document in documents])
            for document, token_ids in zip(documents, encoded, strict=True):
                writers[document.split].add(document.id, token_ids, source_name(document))
                sizes[document.split] += len(document.text.encode("utf-8", "replace"))
        for writer in writers.values():
            writer.close()
        (temporary / "sizes.json").write_text(json.dumps(sizes))
        clock.write(temporary / TOOK)
        temporary.rename(self.out / file.stem)
        return file.stem


def _sizes(folder: Path) -> dict[str, int]:
    return cast(dict[str, int], json.loads((folder / "sizes.json").read_text()))


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, _BATCH_DOCUMENTS)):
        yield batch
