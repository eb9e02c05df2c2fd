"""Encodes the corpus, one of its files after the other, each committed by a rename.

A killed run finds the files already encoded in `context.scratch`. The shards of all files together
are the artifact's `train/` and `heldout/`, in the corpus's order.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import cast

from cluster.errors import UserError
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
    done = []
    for number, file in enumerate(files):
        done.append(_encode_file(file, tokenizer, config.shard_tokens, context.scratch))
        context.progress(number + 1, len(files), "files")
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
    return totals | {"bytes_per_token": round(totals["train_bytes"] / totals["train_tokens"], 4)}


def _encode_file(file: Path, tokenizer: Tokenizer, shard_tokens: int, scratch: Path) -> Path:
    """The folder with one corpus file's shards of both splits, made now or by a run before."""
    final = scratch / file.stem
    if final.exists():
        return final
    temporary = scratch / f"{file.stem}.part-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    writers = {
        split: TokenWriter(
            temporary / split, tokenizer.vocabulary_size, tokenizer.end_of_text_id, shard_tokens
        )
        for split in SPLITS
    }
    sizes = dict.fromkeys(SPLITS, 0)
    for documents in _batches(read_file(file)):
        encoded = tokenizer.encode_batch([document.text for document in documents])
        for document, token_ids in zip(documents, encoded, strict=True):
            writers[document.split].add(document.id, token_ids, source_name(document))
            sizes[document.split] += len(document.text.encode("utf-8", "replace"))
    for writer in writers.values():
        writer.close()
    (temporary / "sizes.json").write_text(json.dumps(sizes))
    temporary.rename(final)
    return final


def _sizes(folder: Path) -> dict[str, int]:
    return cast(dict[str, int], json.loads((folder / "sizes.json").read_text()))


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, _BATCH_DOCUMENTS)):
        yield batch
