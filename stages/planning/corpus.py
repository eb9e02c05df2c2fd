"""What a corpus of so many tokens takes, from what was measured when one was made.

The corpus and tokens stages note what every unit of work took. Their manifests in the store give
the rates (`corpus_rates`): nothing is guessed, and without a manifest nothing is said but how to
get one. That the rates stay so at another size is the extrapolation, and is named as such.
"""

from __future__ import annotations

from typing import Any

from cluster.meter import Pricing
from cluster.storage import Store
from stages.corpus import Config as CorpusConfig
from stages.planning.corpus_rates import Estimate, Rates, measured, tokens_of
from stages.planning.scaling import SHORT_CPU_S, basis_of, readings, scaling_figures
from stages.pretrain import Config as PretrainConfig
from stages.recipe import Recipe, Step

TRILLION = 10**12
CORES = 1000
"""Where neither the stage's `workers` nor the recipe's `cpus` say how many."""


def corpus_figures(step: Step, recipe: Recipe, store: Store) -> dict[str, Any]:
    """The figures of a corpus stage: measured ones, and what they make of a trillion tokens and of
    the recipe's own number.
    """
    assert isinstance(step.config, CorpusConfig)
    made = list(measured(store, "corpus"))
    if not made:
        return {
            "not measured": f"{store.url} holds no corpus that tells what its work took; "
            f"`raylm run {recipe.arguments} --until {_end(step.name, recipe)}` on a sample "
            "(files: [8] in a source reads eight of its files) measures it, `raylm run nano` gives "
            "a first idea"
        }
    extractor = step.config.extractor
    alike = [manifest for manifest in made if manifest.config.get("extractor") == extractor]
    basis = basis_of(alike or made)
    rates = Rates(basis.corpus, tokens_of(basis.corpus, store))
    cores = step.config.workers or recipe.file.cpus or CORES
    figures = measured_figures(rates, step.config)
    figures |= scaling_figures(readings(alike or made), basis, cores, step.name)
    if rates.tokens is None:
        return figures | {
            "not measured": f"bytes of text a token, so nothing is said of tokens: `raylm run "
            f"{recipe.name} --until {_end(step.name, recipe)}` measures them"
        }
    vocabulary = _vocabulary(step.name, recipe)
    wanted = {"1T tokens": TRILLION, "the recipe's tokens": trained_tokens(step.name, recipe)}
    for name, tokens in wanted.items():
        if tokens:
            estimate = Estimate(float(tokens), rates, vocabulary, basis.busy_share)
            figures |= extrapolated(name, estimate, cores, recipe.file.pricing)
    return figures | {
        "extrapolated means": "the measured rates times the size: reading and writing by bytes, "
        "comparing by documents (its work does not grow with its partitions)"
        + _of_another_vocabulary(rates, vocabulary)
    }


def _of_another_vocabulary(rates: Rates, vocabulary: int | None) -> str:
    assert rates.tokens is not None
    known = rates.tokens.metrics["vocabulary_size"]
    if vocabulary is None or vocabulary == known:
        return ""
    return (
        f"; text a token as measured with a vocabulary of {known:,}: the recipe's {vocabulary:,} "
        f"{'hold more' if vocabulary > known else 'hold less'} text a token, so what is to be read "
        f"is {'more' if vocabulary > known else 'less'} than said here"
    )


def measured_figures(rates: Rates, config: CorpusConfig) -> dict[str, Any]:
    """What the manifests say."""
    corpus, metrics = rates.corpus, rates.corpus.metrics
    cpu_s = sum(rates.seconds(name) for name in ("lines", "units", "duplicates", "files"))
    notes = []
    if cpu_s < SHORT_CPU_S:
        notes.append("a short sample, in which loading the models counts: a floor of the speed")
    if corpus.config.get("extractor") != config.extractor:
        notes.append(f"with extractor {corpus.config.get('extractor')}, here {config.extractor}")
    tokens = rates.tokens
    figures = {
        "measured on": f"{corpus.id}: {metrics['documents_in']:,} records, "
        f"{metrics['bytes_in'] / 1e6:,.1f} MB, {cpu_s:,.1f} CPU-seconds"
        + "".join(f"; {note}" for note in notes),
        "measured: records read, MB per CPU-second": 1e-6 / rates.reading_s,
        "measured: documents compared per CPU-second": 1 / max(rates.comparing_s, 1e-12),
        "measured: text kept, bytes per byte of records": rates.kept_share,
        "measured: corpus in the store, bytes per byte of text": corpus.size / rates.text_bytes,
        "measured: scratch, bytes per byte of text": rates.scratch_share,
    }
    if rates.archive_share is not None:
        figures["measured: archives, bytes per byte of records"] = rates.archive_share
    if tokens is not None:
        made_of = "" if corpus.id in tokens.parents.get("corpus", ()) else " (of another corpus)"
        size, vocabulary = tokens.metrics["bytes_per_token"], tokens.metrics["vocabulary_size"]
        figures |= {
            f"measured: bytes of text a token, vocabulary {vocabulary}": size,
            "measured: text encoded, MB per CPU-second": 1e-6 / rates.encoding_s,
            "measured: tokens in the store, bytes a token": rates.token_bytes,
            "tokens measured on": f"{tokens.id}{made_of}",
        }
    return figures


def extrapolated(name: str, estimate: Estimate, cores: int, price: Pricing) -> dict[str, Any]:
    """What an estimate says, on `cores` cores."""
    hours, spent, stored = estimate.core_hours, estimate.cpu_seconds, estimate.stored_bytes
    share = estimate.rates.archive_share
    archives = "" if share is None else f", in archives of {_tb(estimate.record_bytes * share)}"
    parts = ", ".join(f"{part} {s / sum(spent.values()):.0%}" for part, s in spent.items())
    lying = ", ".join(f"{part} {_tb(size)}" for part, size in stored.items())
    kept = sum(stored.values())
    scratch = estimate.text_bytes * estimate.rates.scratch_share
    head = f"extrapolated: {name} ({estimate.tokens:.3g}): "
    return {
        f"{head}records to read TB": f"{_tb(estimate.record_bytes)}{archives}",
        f"{head}core-hours": f"{hours:,.1f} ({parts})",
        f"{head}hours on {cores:,} cores": f"{hours / cores:,.2f}",
        f"{head}cost {price.currency}": f"{hours * price.cpu_core_hour:,.2f} for cores, "
        f"{kept / 1e9 * price.store_gb_month:,.2f} a month for the store",
        f"{head}energy kWh": f"{hours * price.watts_per_core / 1000:,.2f}",
        f"{head}object store TB": f"{_tb(kept)} ({lying}); scratch of {_tb(scratch)} meanwhile",
    }


def _tb(size: float) -> str:
    return f"{size / 1e12:.3g}"


def trained_tokens(corpus: str, recipe: Recipe) -> int:
    """The most tokens that a pretraining of the recipe reads of what comes from this corpus."""
    most = 0
    for step in recipe.steps.values():
        if isinstance(step.config, PretrainConfig) and corpus in _above(step.name, recipe):
            most = max(most, step.config.steps * step.config.batch_tokens)
    return most


def _vocabulary(corpus: str, recipe: Recipe) -> int | None:
    """Of the tokenizer that the recipe encodes the corpus with."""
    above = (recipe.steps.get(name) for name in _above(_end(corpus, recipe), recipe))
    sizes = (getattr(step.config, "vocabulary_size", None) for step in above if step is not None)
    return next((size for size in sizes if isinstance(size, int)), None)


def _end(corpus: str, recipe: Recipe) -> str:
    """The stage that encodes the corpus, else the corpus itself: up to where to run a sample."""
    found = (
        name
        for name, step in recipe.steps.items()
        if step.stage.name == "tokens" and corpus in _above(name, recipe)
    )
    return next(found, corpus)


def _above(name: str, recipe: Recipe) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        step = recipe.steps.get(waiting.pop())
        for parent in (p for names in (step.parents.values() if step else ()) for p in names):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found
