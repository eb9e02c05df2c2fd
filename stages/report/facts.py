"""What a report says, gathered from artifacts: the content of `report.json`.

Keys: `title`, `stages`, `corpus`, `pass_at_k`, `scores`, `gates`, `lineage`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.artifact import Artifact
from cluster.meter import Usage

Facts = dict[str, Any]
TRUTH_SCORES = ("quality", "dedup", "decontamination", "personal_data", "extraction", "kept")


def read_json(path: Path) -> Any:
    """The JSON value of a file, or None without it."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a JSONL file; none without it."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def gather(
    title: str, artifacts: Sequence[Artifact], scores: Artifact | None, names: Mapping[str, str]
) -> Facts:
    """All facts of a run but the report's own row in `stages`."""
    measured = read_json(scores.path / "scores.json") if scores is not None else None
    measured = measured or {"models": {}, "gates": []}
    corpora = [artifact for artifact in artifacts if artifact.stage == "corpus"]
    return {
        "title": title,
        "stages": [stage_row(artifact, names) for artifact in artifacts],
        "corpus": corpus_facts(corpora),
        "pass_at_k": pass_at_k(measured["models"]),
        "scores": {key: value for key, value in measured.items() if key != "gates"},
        "gates": measured["gates"],
        "lineage": lineage(artifacts, names),
    }


def stage_row(artifact: Artifact, names: Mapping[str, str]) -> Facts:
    """One row of `stages`: name, kind (the stage in the registry), time, cost, energy, id."""
    manifest = artifact.manifest
    return {
        "name": names.get(artifact.id, artifact.id),
        "kind": manifest.stage,
        "artifact": artifact.id,
        "seconds": manifest.seconds,
        "cpu_seconds": manifest.cpu_seconds,
        "peak_pss_bytes": manifest.peak_pss_bytes,
        "cost": manifest.cost,
        "currency": manifest.currency,
        "energy_kwh": manifest.energy_kwh,
        "energy_source": manifest.energy_source,
        "metrics": manifest.metrics,
    }


def own_row(name: str, identity: str | None, usage: Usage) -> Facts:
    """The report's own row: what it took until its page was drawn."""
    return {"name": name, "kind": "report", "artifact": identity, **asdict(usage), "metrics": {}}


def corpus_facts(corpora: Sequence[Artifact]) -> Facts | None:
    """The ledger of the run's (first) corpus, and its scores against the planted truth."""
    if not corpora:
        return None
    folder = corpora[0].path
    ledger = read_json(folder / "ledger.json")
    if ledger is None:
        return None
    truth = read_json(folder / "truth.json")
    return {
        "in": ledger["in"],
        "kept": ledger["kept"],
        "dropped": dropped_by_step(ledger),
        "languages": ledger.get("languages", {}),
        "truth": None
        if truth is None
        else {
            name: {key: truth[name].get(key) for key in ("precision", "recall", "planted")}
            for name in TRUTH_SCORES
            if name in truth
        },
        "decontamination": read_json(folder / "decontamination.json"),
    }


def dropped_by_step(ledger: Mapping[str, Any]) -> Facts:
    """Step -> documents, bytes and reasons; what is broken leaves by the step "quarantine"."""
    dropped = {
        step: {
            "documents": sum(counts["documents"] for counts in reasons.values()),
            "bytes": sum(counts["bytes"] for counts in reasons.values()),
            "reasons": {reason: counts["documents"] for reason, counts in reasons.items()},
        }
        for step, reasons in ledger["dropped"].items()
    }
    if broken := ledger.get("quarantined"):
        dropped["quarantine"] = {
            "documents": sum(broken.values()),
            "bytes": ledger.get("quarantined_bytes", 0),
            "reasons": broken,
        }
    return dropped


def pass_at_k(models: Mapping[str, Any]) -> Facts:
    """Stage kind -> k -> [value, low, high]; of several of a kind, that with most samples."""
    best: dict[str, Any] = {}
    for model in models.values():
        curve = model.get("pass_at_k")
        if curve and model.get("samples", 0) > best.get(model["role"], {}).get("samples", -1):
            best[model["role"]] = model
    return {role: model["pass_at_k"] for role, model in best.items()}


def lineage(artifacts: Sequence[Artifact], names: Mapping[str, str]) -> Facts:
    """Nodes {id, name, kind} and edges {from, to, as}: who was made from whom."""
    nodes = [
        {"id": a.id, "name": names.get(a.id, a.id), "kind": a.manifest.stage} for a in artifacts
    ]
    known = {artifact.id for artifact in artifacts}
    edges = [
        {"from": parent, "to": artifact.id, "as": field}
        for artifact in artifacts
        for field, parents in artifact.manifest.parents.items()
        for parent in parents
        if parent in known
    ]
    return {"nodes": nodes, "edges": edges}


def add_node(graph: Facts, identity: str, name: str, parents: Sequence[Artifact]) -> None:
    """Put the report itself into the lineage, below all it tells of."""
    graph["nodes"].append({"id": identity, "name": name, "kind": "report"})
    graph["edges"] += [
        {"from": artifact.id, "to": identity, "as": "stages"} for artifact in parents
    ]


def totals(rows: Iterable[Mapping[str, Any]]) -> Facts:
    """Sums over the stages; memory is the largest; energy is `measured` where all of it is."""
    rows = list(rows)
    return {
        "seconds": sum(row["seconds"] for row in rows),
        "cost": sum(row["cost"] for row in rows),
        "energy_kwh": sum(row["energy_kwh"] for row in rows),
        "peak_pss_bytes": max((row["peak_pss_bytes"] for row in rows), default=0),
        "currency": " and ".join(sorted({row["currency"] for row in rows})),
        "measured": all(row["energy_source"] == "RAPL" for row in rows),
    }


def training_logs(
    artifacts: Sequence[Artifact], names: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """Stage name -> lines of its log.jsonl, for the stages that trained."""
    logs = {names.get(a.id, a.id): read_lines(a.path / "log.jsonl") for a in artifacts}
    return {name: lines for name, lines in logs.items() if len(lines) > 1}
