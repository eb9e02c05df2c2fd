"""A real crawl and real HTML through corpus, tokenizer, tokens and a few pretrain steps."""

from __future__ import annotations

import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.command import raylm

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PAGES = "maint-guide-debian-faq-en-zh.tar.xz"
CRAWLS = (
    "dolma/tests/data/warc/sample-0000.warc.gz",
    "resiliparse/tests/data/warcfile.warc.gz",
    "pywb/sample_archive/warcs/iana.warc.gz",
    "whirlwind",
    "aut/src/test/resources/arc/badexample.arc.gz",
)
"""Three archives with good pages, a page as WARC and WET, and one that is broken."""


def recipe(store: Path, pages: Path) -> dict[str, Any]:
    """Corpus, tokenizer, tokens and a base model of a few steps."""
    crawls = [{"path": str(DATA / "warc" / crawl)} for crawl in CRAWLS]
    shape = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
    }
    return {
        "name": "real",
        "seed": 17,
        "store": str(store),
        "stages": {
            "corpus": {
                "stage": "corpus",
                "sources": [*crawls, {"path": str(pages), "name": "debian"}],
                "languages": ["en", "zh", "de", "ja", "ru", "fr", "es", "it"],
                "heldout_fraction": 0.1,
            },
            "tokenizer": {"stage": "tokenizer", "corpus": "corpus", "vocabulary_size": 1024},
            "tokens": {"stage": "tokens", "corpus": "corpus", "tokenizer": "tokenizer"},
            "base": {
                "stage": "pretrain",
                "tokens": "tokens",
                "tokenizer": "tokenizer",
                "model": shape,
                "steps": 10,
                "batch_tokens": 1024,
                "sequence_length": 128,
                "warmup_steps": 2,
                "heldout_tokens": 1024,
            },
        },
    }


@pytest.mark.e2e
def test_real_pages_become_a_base_model(tmp_path: Path) -> None:
    if not (DATA / "warc").is_dir() or not (DATA / "debian" / PAGES).is_file():
        pytest.skip(f"needs the real crawls in {DATA}, which are not on this machine")
    pages = tmp_path / "pages"
    with lzma.open(DATA / "debian" / PAGES) as packed, tarfile.open(fileobj=packed) as archive:
        archive.extractall(pages, filter="data")
    store = tmp_path / "runs"
    path = tmp_path / "real.yaml"
    path.write_text(yaml.safe_dump(recipe(store, pages)), encoding="utf-8")

    done = raylm(tmp_path, "run", str(path), limit_s=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    index = json.loads((store / "real" / "index.json").read_text(encoding="utf-8"))
    folder = {name: store / "artifacts" / entry["id"] for name, entry in index.items()}
    ledger = json.loads((folder["corpus"] / "ledger.json").read_text(encoding="utf-8"))
    dropped = sum(
        counts["documents"] for reasons in ledger["dropped"].values() for counts in reasons.values()
    )
    quarantined = sum(ledger["quarantined"].values())
    assert ledger["in"]["documents"] == ledger["kept"]["documents"] + dropped + quarantined
    assert ledger["kept"]["documents"] >= 30
    assert quarantined >= 1, "the broken archive is reported, and the run goes on"
    assert {"en", "zh"} <= ledger["languages"].keys()

    log = [json.loads(line) for line in (folder["base"] / "log.jsonl").open(encoding="utf-8")]
    assert len(log) == 10
    assert log[-1]["loss"] < log[0]["loss"]
    assert (folder["base"] / "model.safetensors").stat().st_size > 0
