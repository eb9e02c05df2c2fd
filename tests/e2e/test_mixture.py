"""Two sources of one corpus in a training with an annealing phase, through the command: the shares
that were asked for, losses by source, traces, and a longer run that goes on from the shorter one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.storage import LocalStore
from stages.trace import Tracer
from tests.e2e.command import raylm
from tests.stages.corpus.crawl import english

MIXTURE = {
    "weights": {"web": 3, "books": 1},
    "phases": [{"begin": "decay", "weights": {"books": 1}}],
}
STEPS, ROWS, DECAY = 20, 8, 14


def write_recipe(folder: Path) -> Path:
    for number, name in enumerate(("web", "books")):
        lines = [json.dumps({"text": english(100 * number + n)}) for n in range(60)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    base = {
        "stage": "pretrain", "tokens": "tokens", "mixture": MIXTURE, "steps": STEPS,
        "sequence_length": 64, "batch_tokens": 64 * ROWS, "warmup_steps": 2, "evaluate_every": 2,
        "heldout_tokens": 1024, "checkpoint_every": 5, "parallel": {"workers": 2, "rows": 4},
        "model": {
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
        },
    }  # fmt: skip
    sources = [{"path": str(folder / f"{name}.jsonl"), "name": name} for name in ("web", "books")]
    stages = {
        "corpus": {
            "stage": "corpus", "sources": sources, "heldout_fraction": 0.2, "workers": 0,
        },
        "tokenizer": {"stage": "tokenizer", "corpus": "corpus", "vocabulary_size": 512},
        "tokens": {"stage": "tokens", "corpus": "corpus", "tokenizer": "tokenizer"},
        "base": base,
    }  # fmt: skip
    path = folder / "mixed.yaml"
    recipe = {"name": "mixed", "store": str(folder / "runs"), "stages": stages}
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def base_of(folder: Path) -> tuple[Path, dict[str, Any]]:
    index = json.loads((folder / "runs" / "mixed" / "index.json").read_text(encoding="utf-8"))
    base = folder / "runs" / "artifacts" / index["base"]["id"]
    return base, json.loads((base / "manifest.json").read_text(encoding="utf-8"))


@pytest.mark.e2e
def test_sources_are_mixed_annealed_traced_and_continued(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    done = raylm(tmp_path, "run", str(recipe), limit_s=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    base, manifest = base_of(tmp_path)

    store = LocalStore(tmp_path / "runs")
    tokens = store.get(manifest["parents"]["tokens"][0])
    index = json.loads(tokens.file("train/index.json").read_text(encoding="utf-8"))
    windows = {shard["source"]: (shard["tokens"] - 1) // 64 for shard in index["shards"]}
    rows = {"web": DECAY * ROWS * 3 // 4, "books": DECAY * ROWS // 4 + (STEPS - DECAY) * ROWS}
    assert manifest["metrics"]["epochs"] == {name: rows[name] / windows[name] for name in rows}

    log = [json.loads(line) for line in (base / "log.jsonl").open(encoding="utf-8")]
    for line in log:
        if "heldout_loss" in line:
            assert {"heldout_loss/web", "heldout_loss/books", "loss/books"} <= set(line)
            assert ("loss/web" in line) == (line["step"] < DECAY)
    assert log[-1]["heldout_loss/books"] < log[1]["heldout_loss/books"]

    tracer = Tracer(store, store.get(manifest["id"]))
    for step, sources in ((3, {"web", "books"}), (STEPS - 1, {"books"})):
        archives = {Path(tracer.trace(step, row, 7).archive).stem for row in range(ROWS)}
        assert archives == sources
    asked = ("trace", "mixed/base", str(STEPS - 1), "0", "7", "--store", store.url)
    traced = raylm(tmp_path, *asked, limit_s=60)
    assert traced.returncode == 0 and "books.jsonl" in traced.stdout, traced.stderr

    longer = raylm(tmp_path, "run", str(recipe), "--set", "stages.base.steps=30", limit_s=300)
    assert longer.returncode == 0, longer.stdout[-2000:] + longer.stderr[-4000:]
    base, _ = base_of(tmp_path)
    events = [json.loads(line) for line in (base / "events.jsonl").open(encoding="utf-8")]
    assert [event["step"] for event in events if event["event"] == "resumed"] == [DECAY]
    again = [json.loads(line) for line in (base / "log.jsonl").open(encoding="utf-8")]
    assert [line["loss"] for line in again[:DECAY]] == [line["loss"] for line in log[:DECAY]]
