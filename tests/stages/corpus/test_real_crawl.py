"""The corpus stage on real archives, malformed ones among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.corpus import STAGE, Config
from stages.stage import Context
from stages.text.documents import read_documents

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.dist  # no Ray, but a quarter of the fast tests' time
@pytest.mark.skipif(not (DATA / "warc").exists(), reason=f"needs the archives in {DATA / 'warc'}")
def test_a_folder_of_real_archives_goes_through(context: Context) -> None:
    config = Config.model_validate(
        {"sources": [{"path": str(DATA / "warc")}], "languages": ["en", "zh", "ru"], "workers": 0}
    )
    metrics = STAGE.run(config, {"crawls": [], "decontaminate": []}, context)
    ledger = json.loads((context.out / "ledger.json").read_text())
    dropped = sum(c["documents"] for by in ledger["dropped"].values() for c in by.values())
    broken = sum(ledger["quarantined"].values())
    assert ledger["in"]["documents"] == ledger["kept"]["documents"] + dropped + broken > 500
    assert metrics["documents"] > 20
    assert {"bad_length", "truncated_record", "damaged_archive"} <= set(ledger["quarantined"])
    documents = list(read_documents(context.out))
    assert {d.language for d in documents} >= {"en", "zh"}
    assert not any("\ufffd" in d.text for d in documents if d.language == "zh")
