"""Tokenization: the tokens stage on one file of a corpus (reading parquet, encoding, writing
shards) against the raw `tokenizers` batch call on the same texts in memory, bytes per CPU-second.
"""

from __future__ import annotations

import shutil
import tempfile
from itertools import count
from pathlib import Path

from model.tokenizer import Tokenizer
from stages.text.documents import Document, write_documents
from stages.text.prose import read_packages
from stages.text.token_shards import TokenShards
from stages.tokens.run import FileEncoder
from tests.bench.harness import compare, cpu_rate

PACKAGES = ("networkx", "pydantic", "numpy", "fsspec")
BYTES = 2_000_000
BATCH = 256


def texts() -> list[str]:
    """The prose of installed packages, up to `BYTES`."""
    found, size = [], 0
    for page in read_packages(PACKAGES):
        if page.text and size < BYTES:
            found.append(page.text)
            size += len(page.text.encode())
    return found


def main() -> None:
    documents = texts()
    size = float(sum(len(text.encode()) for text in documents))
    tokenizer = Tokenizer.train(documents[:200], 8192)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save(folder / "tokenizer")
        file = folder / "documents-00000.parquet"
        rows = [
            Document(f"{n:032x}", text, "", "bench/0", "en") for n, text in enumerate(documents)
        ]
        write_documents(rows, file)
        turn = count()

        def ours() -> float:
            out = folder / f"out-{next(turn)}"
            out.mkdir()
            FileEncoder(folder / "tokenizer", 1 << 24, out)(file)
            shutil.rmtree(out)
            return size

        def raw() -> float:
            total = 0
            for first in range(0, len(documents), BATCH):
                batch = documents[first : first + BATCH]
                for encoding in tokenizer.backend.encode_batch_fast(
                    batch, add_special_tokens=False
                ):
                    total += len(encoding.ids)
            return size

        FileEncoder(folder / "tokenizer", 1 << 24, folder)(file)
        shards = TokenShards(folder / file.stem / "train")
        expected = sum(len(ids) + 1 for ids in tokenizer.encode_batch(documents))
        if shards.tokens != expected:
            raise SystemExit(f"the shards hold {shards.tokens} tokens, not {expected}")
        print(
            f"tokenize: {size / 1e6:.1f} MB, {size / expected:.2f} bytes/token, packed into 2048: "
            f"{100 * shards.packed_share(2048):.2f} % of tokens"
        )
        compare("tokenize", ours, raw, "bytes/CPU-s", rounds=5, rate=cpu_rate)


if __name__ == "__main__":
    main()
