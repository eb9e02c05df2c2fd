"""Run stage evaluate: measurements over actors, then scores, gates and samples from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from cluster.artifact import Artifact
from cluster.errors import UserError
from stages.evaluate import EvaluateConfig
from stages.evaluate.gates import Gate, all_gates
from stages.evaluate.heldout import TextCost
from stages.evaluate.intervals import Interval
from stages.evaluate.measured import Measured, parent_of, role_of, win_rate
from stages.evaluate.measurer import (
    ANSWERS,
    CERTIFICATE,
    FACTS,
    NGRAM,
    PREFERENCES,
    PROBLEMS,
    TEXT,
    Job,
    Measurer,
    Settings,
    Subject,
)
from stages.stage import Context, Inputs, Metrics, StageConfig, several


def run(stage_config: StageConfig, inputs: Inputs, context: Context) -> Metrics:
    """Measure every model; write scores.json and samples.jsonl; return the key figures."""
    config = cast(EvaluateConfig, stage_config)
    models = list(several(inputs, "models"))
    _check(models)
    measured = [
        Measured(_name(a, context), a.id, a.stage, role_of(a), parent_of(a)) for a in models
    ]
    subjects = [
        Subject(entry.name, artifact.path, entry.role != "pretrain")
        for entry, artifact in zip(measured, models, strict=True)
    ]
    jobs = list(_jobs(config, inputs, measured, subjects))
    ngram: tuple[TextCost, list[int]] | None = None
    certificate: dict[str, Any] | None = None
    shown: list[dict[str, Any]] = []
    by_name = {entry.name: entry for entry in measured}
    for done, (job, result) in enumerate(_results(config, inputs, context, jobs), start=1):
        if job.measurement == NGRAM:
            ngram = result
        elif job.measurement == CERTIFICATE:
            certificate = result
        elif job.measurement == ANSWERS:
            shown += result
        elif job.subject is not None:
            _keep(by_name[job.subject.name], job.measurement, result)
        context.progress(done, len(jobs), job.subject.name if job.subject else job.measurement)
    reward = cast("Artifact | None", inputs.get("reward"))
    gates = all_gates(
        measured, ngram[0] if ngram else None, _accuracy(reward), certificate, context.seed
    )
    scores = {
        "models": _entries(measured, context.seed),
        "ngram": _ngram_entry(config, ngram, context.seed),
        "reward": _accuracy(reward),
        "decontamination": certificate,
        "gates": [gate.record() for gate in gates],
    }
    _write(context.out, scores, shown)
    return _metrics(scores, gates)


def _check(models: Sequence[Artifact]) -> None:
    """Refuse what is no language model before any time is spent."""
    if not models:
        raise UserError("evaluate has no models; name at least one checkpoint in `models`")
    for artifact in models:
        if artifact.stage == "reward":
            raise UserError(
                f"{artifact.id} is a reward model, not a language model; name it under `reward`"
                " instead of `models`"
            )


def _name(artifact: Artifact, context: Context) -> str:
    return context.names.get(artifact.id, artifact.id)


def _jobs(
    config: EvaluateConfig,
    inputs: Inputs,
    measured: Sequence[Measured],
    subjects: Sequence[Subject],
) -> Iterator[Job]:
    """All measurements, the long ones first so that the actors end together."""
    full = set(config.full_pass_at_k)
    starts = {entry.parent for entry in measured if entry.role == "rlvr"}
    pairs = list(zip(measured, subjects, strict=True))
    if inputs.get("problems") is not None:
        many = [p for p in pairs if p[0].role in full or p[0].id in starts]
        for _, subject in sorted(many, key=lambda pair: pair[1].chat):
            yield Job(PROBLEMS, subject, config.samples)
    yield Job(NGRAM)
    if inputs.get("corpus") is not None and inputs.get("problems") is not None:
        yield Job(CERTIFICATE)
    for entry, subject in pairs:
        yield Job(TEXT, subject)
        if inputs.get("problems") is not None:
            few = entry.role not in full and entry.id not in starts
            if few and config.samples_elsewhere:
                yield Job(PROBLEMS, subject, config.samples_elsewhere)
            if config.lm_eval:
                yield Job(FACTS, subject)
        if inputs.get("preferences") is not None and subject.chat:
            yield Job(PREFERENCES, subject, config.preference_samples)
        yield Job(ANSWERS, subject)


def _settings(config: EvaluateConfig, inputs: Inputs, context: Context) -> Settings:
    def folder(name: str) -> Path | None:
        artifact = inputs.get(name)
        return None if artifact is None else cast(Artifact, artifact).path

    tokens = folder("tokens")
    assert tokens is not None
    shared = Settings.__dataclass_fields__.keys() & EvaluateConfig.model_fields.keys()
    fields = {name: getattr(config, name) for name in shared - {"tokens", "corpus"}}
    fields |= {"problems": folder("problems"), "preferences": folder("preferences")}
    fields |= {"corpus": folder("corpus")}
    questions = _questions(folder("problems"), config.facts) if config.lm_eval else []
    return Settings(
        seed=context.seed,
        tokens=tokens,
        scratch=context.scratch,
        questions=questions,
        **fields,
    )


def _questions(problems: Path | None, count: int) -> list[dict[str, Any]]:
    """Multiple-choice questions of the examples that the problems come from."""
    if problems is None:
        return []
    path = problems / "multiple_choice.jsonl"
    if not path.exists():
        raise UserError(
            f"{path} does not exist; evaluate asks it through lm-evaluation-harness: let the"
            " examples stage write it, or set lm_eval: false"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()][:count]


def _results(
    config: EvaluateConfig, inputs: Inputs, context: Context, jobs: Sequence[Job]
) -> Iterator[tuple[Job, Any]]:
    """Each job with its result, here or in actors; an actor that cannot answer fails the stage."""
    settings = _settings(config, inputs, context)
    if config.workers == 0:
        measurer = Measurer(settings)
        for job in jobs:
            yield job, measurer.measure(job)
        return
    context.connect()
    from cluster import session
    from cluster.pool import ActorPool, Failure

    threads = str(settings.threads)
    environment = {"OMP_NUM_THREADS": threads, "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    environment |= session.KEEPING_MEMORY
    options = {"num_cpus": 1, "runtime_env": {"env_vars": environment}}
    # A depth of one leaves waiting jobs to whichever actor is free first.
    with ActorPool(Measurer, config.workers, args=(settings,), options=options, depth=1) as pool:
        for job, result in zip(
            jobs, pool.imap("measure", jobs, deadline_s=config.deadline_s), strict=True
        ):
            if isinstance(result, Failure):
                of = f" of {job.subject.name}" if job.subject else ""
                raise RuntimeError(
                    f"measuring {job.measurement}{of} failed {result.attempts} times:"
                    f" {result.reason}"
                )
            yield job, result


def _keep(entry: Measured, measurement: str, result: Any) -> None:
    keepers: dict[str, Callable[[], None]] = {
        TEXT: lambda: setattr(entry, "text", result),
        PROBLEMS: lambda: setattr(entry, "tallies", result),
        PREFERENCES: lambda: setattr(entry, "preferences", result),
        FACTS: lambda: setattr(entry, "facts", result),
    }
    keepers[measurement]()


def _entries(measured: Sequence[Measured], seed: int) -> dict[str, Any]:
    """scores.json's models: each one's summary, and its wins against sft where both answered."""
    sft = next((entry for entry in measured if entry.role == "sft" and entry.preferences), None)
    entries = {}
    for entry in measured:
        summary = entry.summary(seed)
        if sft is not None and entry is not sft and entry.preferences:
            summary["win_rate_vs_sft"] = win_rate(entry.preferences, sft.preferences, seed)
        entries[entry.name] = summary
    return entries


def _ngram_entry(
    config: EvaluateConfig, ngram: tuple[TextCost, list[int]] | None, seed: int
) -> dict[str, Any] | None:
    if ngram is None:
        return None
    cost, counts = ngram
    return {
        "order": config.ngram_order,
        "ngrams": counts,
        "bits_per_byte": cost.bits_per_byte(seed),
        "perplexity": cost.perplexity(),
    }


def _accuracy(reward: Artifact | None) -> Interval | None:
    """[value, low, high] from the reward stage's metrics."""
    if reward is None:
        return None
    keys = ("accuracy", "accuracy_low", "accuracy_high")
    if missing := [key for key in keys if key not in reward.metrics]:
        raise UserError(
            f"{reward.id}, named under `reward`, has no metric {', '.join(missing)}; expected a"
            " model made by stage reward"
        )
    return [float(reward.metrics[key]) for key in keys]


def _write(out: Path, scores: dict[str, Any], shown: Iterable[dict[str, Any]]) -> None:
    text = json.dumps(scores, ensure_ascii=False, indent=1)
    (out / "scores.json").write_text(text + "\n", encoding="utf-8")
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in shown]
    (out / "samples.jsonl").write_text("".join(lines), encoding="utf-8")


def _metrics(scores: dict[str, Any], gates: Sequence[Gate]) -> Metrics:
    """Key figures for the table and the manifest."""
    metrics: Metrics = {
        "models": len(scores["models"]),
        "gates_passed": sum(gate.passed for gate in gates),
        "gates": len(gates),
        "gates_failed": [gate.name for gate in gates if not gate.passed],
    }
    for name, entry in scores["models"].items():
        if "pass_at_k" in entry and "1" in entry["pass_at_k"]:
            metrics[f"pass_at_1_{name}"] = entry["pass_at_k"]["1"][0]
    return metrics
