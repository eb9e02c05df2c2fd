"""Run stage report: gather, draw, write report.html and report.json."""

from __future__ import annotations

import json
from typing import cast

from cluster.artifact import Artifact
from cluster.meter import Meter
from stages.report import ReportConfig
from stages.report.facts import add_node, gather, own_row, read_lines, training_logs
from stages.report.page import draw, render
from stages.stage import Context, Inputs, Metrics, StageConfig, several


def run(stage_config: StageConfig, inputs: Inputs, context: Context) -> Metrics:
    """Write both files; the metrics say how many gates passed."""
    config = cast(ReportConfig, stage_config)
    scores = cast("Artifact | None", inputs.get("scores"))
    artifacts = list(several(inputs, "stages"))
    if scores is not None and scores.id not in {artifact.id for artifact in artifacts}:
        artifacts.append(scores)
    with Meter(context.pricing) as meter:
        facts = gather(config.title, artifacts, scores, context.names)
        logs = training_logs(artifacts, context.names)
        samples = read_lines(scores.path / "samples.jsonl") if scores is not None else []
        own_id = next((id_ for id_, name in context.names.items() if name == context.name), "")
        add_node(facts["lineage"], own_id or "report", context.name or "report", artifacts)
        charts = draw(facts, logs)
    facts["stages"].append(own_row(context.name or "report", own_id or None, meter.usage()))
    page = render(facts, charts, samples)
    (context.out / "report.html").write_text(page, encoding="utf-8")
    text = json.dumps(facts, ensure_ascii=False, indent=1)
    (context.out / "report.json").write_text(text + "\n", encoding="utf-8")
    passed = sum(gate["passed"] for gate in facts["gates"])
    return {"gates_passed": passed, "gates": len(facts["gates"]), "bytes": len(page.encode())}
