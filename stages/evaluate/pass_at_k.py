"""pass@k: the chance that at least one of k samples passes, estimated without bias from n samples.

With c of n samples right, 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, "Evaluating Large Language
Models Trained on Code", equation 1), computed as a product so that no binomial overflows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stages.evaluate.intervals import Interval, bootstrap_mean

POWERS = (1, 2, 4, 8, 16, 32)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The unbiased estimate from `correct` right answers among `samples`; needs k <= samples."""
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {correct} right among {samples} samples is not defined")
    if samples - correct < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(samples - correct + 1, samples + 1)))


def curve(counts: Sequence[tuple[int, int]], seed: int) -> dict[str, Interval]:
    """`counts` holds (samples, correct) per problem -> {"1": [value, low, high], "2": ...}.

    k runs over the powers of two up to the fewest samples any problem has; the interval is a
    bootstrap over problems.
    """
    most = min((samples for samples, _ in counts), default=0)
    return {
        str(k): bootstrap_mean([pass_at_k(samples, right, k) for samples, right in counts], seed)
        for k in POWERS
        if k <= most
    }


def curves_by_task(
    counts: Mapping[str, Sequence[tuple[int, int]]], seed: int
) -> dict[str, dict[str, Interval]]:
    """One curve for each task."""
    return {task: curve(rows, seed) for task, rows in sorted(counts.items())}


def difference(after: Mapping[str, float], before: Mapping[str, float], seed: int) -> Interval:
    """Mean of after - before over the problems both have, paired, with a bootstrap interval."""
    both = sorted(after.keys() & before.keys())
    return bootstrap_mean([after[problem] - before[problem] for problem in both], seed)
