"""A run as the report meets it: artifacts of every stage with the files that stages write."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

from cluster.artifact import Artifact, Manifest

PARENTS: dict[str, tuple[str, str, dict[str, list[str]]]] = {
    # name: (kind, stage, parents)
    "crawl": ("examples", "examples", {}),
    "problems": ("examples", "examples", {}),
    "conversations": ("examples", "examples", {"problems": ["problems"]}),
    "preferences": ("examples", "examples", {"problems": ["problems"]}),
    "corpus": ("corpus", "corpus", {"crawls": ["crawl"], "decontaminate": ["problems"]}),
    "tokenizer": ("tokenizer", "tokenizer", {"corpus": ["corpus"]}),
    "tokens": ("tokens", "tokens", {"corpus": ["corpus"], "tokenizer": ["tokenizer"]}),
    "base": ("checkpoint", "pretrain", {"tokens": ["tokens"], "tokenizer": ["tokenizer"]}),
    "chat": ("checkpoint", "sft", {"model": ["base"], "examples": ["conversations"]}),
    "dpo": ("checkpoint", "dpo", {"model": ["chat"], "examples": ["preferences"]}),
    "judge": ("checkpoint", "reward", {"model": ["chat"], "examples": ["preferences"]}),
    "aligned": (
        "checkpoint",
        "ppo",
        {"model": ["chat"], "reward": ["judge"], "examples": ["preferences"]},
    ),
    "reasoner": ("checkpoint", "rlvr", {"model": ["aligned"], "problems": ["problems"]}),
    "continued": (
        "checkpoint",
        "sft",
        {"model": ["aligned"], "examples": ["conversations"], "compute_of": ["reasoner"]},
    ),
    "student": (
        "checkpoint",
        "distill",
        {"model": ["base"], "teacher": ["reasoner"], "examples": ["conversations"]},
    ),
    "student_alone": (
        "checkpoint",
        "distill",
        {"model": ["base"], "examples": ["conversations"], "compute_of": ["student"]},
    ),
    "int8": ("quantized", "quantize", {"model": ["reasoner"], "tokens": ["tokens"]}),
    "scores": (
        "scores",
        "evaluate",
        {
            "models": ["base", "chat", "dpo", "aligned", "reasoner", "continued", "int8"],
            "tokens": ["tokens"],
        },
    ),
}
SECONDS = dict(
    zip(
        PARENTS, (14, 3, 4, 4, 62, 8, 11, 238, 55, 36, 30, 57, 143, 41, 38, 37, 12, 58), strict=True
    )
)
ROLES = {"continued": "sft_continued", "student_alone": "distill_alone"}


def identity(name: str) -> str:
    return f"{PARENTS[name][0]}-{name:0<12}"


def make_run(root: Path) -> tuple[list[Artifact], dict[str, str]]:
    """All artifacts of a run under `root`, and artifact id -> name."""
    artifacts = []
    for name, (kind, stage, parents) in PARENTS.items():
        folder = root / name
        folder.mkdir(parents=True)
        if stage == "corpus":
            _write_corpus(folder)
        elif stage == "evaluate":
            _write_scores(folder)
        elif kind == "checkpoint":
            _write_log(folder, name, stage)
        seconds = float(SECONDS[name])
        manifest = Manifest(
            id=identity(name),
            kind=kind,
            stage=stage,
            stage_version=1,
            code_version="0.1.0",
            config={},
            parents={field: [identity(p) for p in ps] for field, ps in parents.items()},
            seed=17,
            trajectory="t",
            metrics={"parameters": 1_312_000, "tokens": 5_242_880} if stage == "pretrain" else {},
            seconds=seconds,
            cpu_seconds=1.8 * seconds,
            peak_pss_bytes=int(2.4e9),
            cost=seconds * 0.04 / 3600 * 2,
            currency="EUR",
            energy_kwh=seconds * 16 / 3.6e6,
            created="2026-11-22T13:00:00Z",
            files=[],
        )
        artifacts.append(Artifact(folder, manifest))
    return artifacts, {artifact.id: artifact.path.name for artifact in artifacts}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _write_corpus(folder: Path) -> None:
    def dropped(**reasons: int) -> dict[str, dict[str, int]]:
        return {name: {"documents": n, "bytes": 900 * n} for name, n in reasons.items()}

    steps = {
        "c4": dropped(too_few_sentences=61, curly_bracket=12),
        "decontamination": dropped(exact=48, near=11),
        "dedup": dropped(exact=204, near=187),
        "extraction": dropped(no_text=17),
        "gopher_quality": dropped(short=120, stop_words=44, symbols=9, bullets=3),
        "language": dropped(fr=21, de=14),
    }
    lost = sum(counts["documents"] for reasons in steps.values() for counts in reasons.values())
    ledger = {
        "in": {"documents": 3600, "bytes": 3600 * 900},
        "kept": {"documents": 3600 - lost - 6, "bytes": (3600 - lost - 6) * 900},
        "dropped": steps,
        "quarantined": {"truncated_record": 4, "bad_charset": 2},
        "languages": {"en": {"in": 2700, "kept": 2200, "dropped": 500}},
    }
    _write(folder / "ledger.json", ledger)
    score = {"precision": 0.991, "recall": 0.967, "found": 1, "flagged": 1, "planted": 142}
    _write(
        folder / "truth.json", {"pages": 3600, **dict.fromkeys(("quality", "dedup", "kept"), score)}
    )


def _write_log(folder: Path, name: str, stage: str) -> None:
    random = Random(name)
    lines = []
    for step in range(1, 201):
        line: dict[str, Any] = {"step": step, "tokens": 8192}
        if stage == "rlvr":
            line["pass_rate"] = 0.35 + 0.35 * step / 200 + random.gauss(0, 0.05)
        elif stage == "ppo":
            line["reward"] = -0.5 + 1.5 * (1 - math.exp(-step / 60)) + random.gauss(0, 0.1)
        line["loss"] = 2.2 + 5 * math.exp(-step / 30) + random.gauss(0, 0.06)
        lines.append(json.dumps(line) + "\n")
    (folder / "log.jsonl").write_text("".join(lines), encoding="utf-8")


def _write_scores(folder: Path) -> None:
    models: dict[str, Any] = {}
    level = {"base": 0.03, "chat": 0.31, "dpo": 0.33, "aligned": 0.35, "reasoner": 0.66}
    level |= {"continued": 0.41, "student": 0.3, "student_alone": 0.22, "int8": 0.65}
    for name, p in level.items():
        stage = PARENTS[name][1]
        ks = (
            [1, 2, 4, 8, 16, 32]
            if name not in ("dpo", "student", "student_alone", "int8")
            else [1, 2, 4]
        )
        points = {str(k): 1 - (1 - p) ** (1 + 0.55 * (k - 1) ** 0.8) for k in ks}
        curve = {k: [v, max(0, v - 0.06), min(1, v + 0.06)] for k, v in points.items()}
        models[name] = {
            "id": identity(name),
            "stage": stage,
            "role": ROLES.get(name, stage),
            "parent": "",
            "bits_per_byte": [1.62, 1.58, 1.66],
            "perplexity": 21.4,
            "pass_at_k": curve,
            "pass_at_k_by_task": {task: curve for task in ("arithmetic", "format", "code")},
            "samples": 72 * ks[-1],
            "facts_accuracy": [0.41, 0.32, 0.51],
        }
        if name in ("dpo", "aligned", "reasoner"):
            models[name]["win_rate_vs_sft"] = [0.58, 0.52, 0.64]
    gates = [
        ("base_beats_ngram", 0.31, 0.28, 0.34, 0.0, True, "base spends 1.620 bits"),
        ("reward_accuracy", 0.74, 0.69, 0.79, 0.5, True, "it picks the better answer"),
        ("dpo_wins_against_sft", 0.52, 0.47, 0.57, 0.5, True, "dpo wins 0.520"),
        ("rlvr_parent_in_range", 0.35, 0.31, 0.39, [0.2, 0.6], True, "pass@1 of aligned is 0.350"),
        ("rlvr_gain", 0.15, 0.11, 0.19, 0.2, False, "pass@1 rises from 0.350 to 0.500"),
    ]  # fmt: skip
    keys = ("name", "value", "low", "high", "threshold", "passed", "sentence")
    _write(
        folder / "scores.json",
        {
            "models": models,
            "ngram": {
                "order": 5,
                "ngrams": [1],
                "bits_per_byte": [1.93, 1.9, 1.97],
                "perplexity": 35.1,
            },
            "reward": [0.74, 0.69, 0.79],
            "decontamination": None,
            "gates": [dict(zip(keys, gate, strict=True)) for gate in gates],
        },
    )
    prompts = [
        ("What is 37 + 45?", "arithmetic"),
        ("用三个词描述猫。", "format"),
        ("Say <b>hi</b> & bye", "conversation"),
    ]
    samples = [
        {
            "model": name,
            "prompt": prompt,
            "task": task,
            "answer": f"{name} says <i>82</i> 猫",
            "passed": None if task == "conversation" else i % 2 == 0,
        }
        for i, name in enumerate(level)
        for prompt, task in prompts
    ]
    lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
    (folder / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
