"""Gates: does each stage do what it is there for? Every verdict is computed from measurements.

A gate passes when its value is on the right side of its threshold; where the gate asks for
certainty (`with_interval`) the whole 95 % interval must be. A gate whose models were not measured
is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stages.evaluate.heldout import TextCost, perplexity_ratio, saving
from stages.evaluate.intervals import Interval, bootstrap_mean
from stages.evaluate.measured import Measured, win_rate
from stages.evaluate.pass_at_k import difference

RLVR_GAIN = 0.2
RLVR_START = (0.2, 0.6)
QUANTIZED_LOSS = 0.01


@dataclass(frozen=True)
class Gate:
    """One question with its answer. `threshold` is one number, or [low, high] of a range."""

    name: str
    found: Interval
    threshold: float | list[float]
    passed: bool
    sentence: str

    def record(self) -> dict[str, Any]:
        """As in scores.json."""
        record = asdict(self)
        value, low, high = record.pop("found")
        return {"name": record.pop("name"), "value": value, "low": low, "high": high, **record}


def _above(
    name: str, found: Interval, threshold: float, text: str, with_interval: bool = False
) -> Gate:
    """A gate that passes above its threshold."""
    value, low, high = found
    passed = (low if with_interval else value) > threshold
    clear = "" if low > threshold or high <= threshold else " (the interval holds the threshold)"
    return Gate(name, found, threshold, passed, text + clear)


def all_gates(
    models: Sequence[Measured],
    ngram: TextCost | None,
    reward_accuracy: Interval | None,
    certificate: dict[str, Any] | None,
    seed: int,
) -> list[Gate]:
    """Every gate whose models were measured, in the order of the pipeline."""
    gates: list[Gate] = []
    if certificate is not None:
        gates.append(_clean(certificate))
    if ngram is not None:
        gates += _base_beats_ngram(models, ngram, seed)
    if reward_accuracy is not None:
        text = f"the reward model picks the truly preferred answer {_show(reward_accuracy)}"
        gates.append(_above("reward_accuracy", reward_accuracy, 0.5, text, with_interval=True))
    gates += _wins_against_sft(models, seed)
    gates += _rlvr(models, seed)
    gates += _distill(models, seed)
    gates += _quantize(models, seed)
    return gates


def _show(interval: Interval) -> str:
    return f"{interval[0]:.3f} [{interval[1]:.3f}, {interval[2]:.3f}]"


def _with_role(models: Iterable[Measured], *roles: str) -> Iterator[Measured]:
    return (model for model in models if model.role in roles)


def _named(gate: str, model: Measured, models: Sequence[Measured]) -> str:
    """The gate's name; the model's is added only where several play the same part."""
    alike = sum(1 for _ in _with_role(models, model.role))
    return gate if alike == 1 else f"{gate}:{model.name}"


def _clean(certificate: dict[str, Any]) -> Gate:
    """The corpus was searched for these very problems, and none of them is left in its text."""
    left, certified = float(certificate["remaining"]), bool(certificate["certified"])
    about = "these" if certified else "other"
    text = (
        f"the corpus was searched for {about} evaluation problems and lost"
        f" {certificate['removed']} documents; {left:.0f} still hold one of them verbatim"
    )
    return Gate("decontaminated", [left, left, left], 0.0, certified and left == 0, text)


def _base_beats_ngram(models: Sequence[Measured], ngram: TextCost, seed: int) -> Iterator[Gate]:
    for base in _with_role(models, "pretrain"):
        if base.text is None:
            continue
        ours, theirs = base.text.bits_per_byte(seed), ngram.bits_per_byte(seed)
        text = (
            f"{base.name} spends {_show(ours)} bits per byte on held-out text, the n-gram model"
            f" {_show(theirs)}"
        )
        name = _named("base_beats_ngram", base, models)
        yield _above(name, saving(base.text, ngram, seed), 0.0, text)


def _wins_against_sft(models: Sequence[Measured], seed: int) -> Iterator[Gate]:
    sft = next((m for m in _with_role(models, "sft") if m.preferences), None)
    if sft is None:
        return
    for model in _with_role(models, "dpo", "ppo"):
        if model.preferences:
            rate = win_rate(model.preferences, sft.preferences, seed)
            text = f"{model.name} wins {_show(rate)} of the comparisons with {sft.name}"
            name = _named(f"{model.role}_wins_against_sft", model, models)
            yield _above(name, rate, 0.5, text + " on the true preference")


def _rlvr(models: Sequence[Measured], seed: int) -> Iterator[Gate]:
    by_id = {model.id: model for model in models}
    for model in _with_role(models, "rlvr"):
        parent = by_id.get(model.parent)
        if parent is None or not parent.tallies or not model.tallies:
            continue
        before = bootstrap_mean(list(parent.pass_at_1().values()), seed)
        after = bootstrap_mean(list(model.pass_at_1().values()), seed)
        gain = difference(model.pass_at_1(), parent.pass_at_1(), seed)
        low, high = RLVR_START
        text = f"pass@1 of {parent.name}, which {model.name} starts from, is {_show(before)}"
        name = _named("rlvr_parent_in_range", model, models)
        inside = low <= before[0] <= high
        yield Gate(name, before, list(RLVR_START), inside, text)
        text = (
            f"pass@1 rises from {_show(before)} ({parent.name}) to {_show(after)} ({model.name}),"
            f" by {_show(gain)}"
        )
        name = _named("rlvr_gain", model, models)
        yield Gate(name, gain, RLVR_GAIN, gain[0] >= RLVR_GAIN, text)


def _distill(models: Sequence[Measured], seed: int) -> Iterator[Gate]:
    alone = next((m for m in _with_role(models, "distill_alone") if m.tallies), None)
    if alone is None:
        return
    for student in _with_role(models, "distill"):
        if student.tallies:
            gain = difference(student.pass_at_1(), alone.pass_at_1(), seed)
            text = (
                f"pass@1 of {student.name}, taught, is {_show(gain)} above that of {alone.name},"
                " the same size trained without the teacher on equal compute"
            )
            name = _named("distill_beats_no_teacher", student, models)
            yield _above(name, gain, 0.0, text)


def _quantize(models: Sequence[Measured], seed: int) -> Iterator[Gate]:
    by_id = {model.id: model for model in models}
    for model in _with_role(models, "quantize"):
        parent = by_id.get(model.parent)
        if parent is None or parent.text is None or model.text is None:
            continue
        loss = perplexity_ratio(model.text, parent.text, seed)
        text = (
            f"perplexity changes by {loss[0]:+.3%} from {parent.text.perplexity():.3f}"
            f" ({parent.name}) to {model.text.perplexity():.3f} ({model.name})"
        )
        name = _named("quantized_loss", model, models)
        yield Gate(name, loss, QUANTIZED_LOSS, loss[0] < QUANTIZED_LOSS, text)
