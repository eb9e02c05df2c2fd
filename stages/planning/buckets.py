"""The arrays that DeepSpeed gathers gradients in on their way to other workers."""

from __future__ import annotations

from stages.planning.run_shape import RunShape

BUCKET_NUMBERS = 200_000_000
"""Numbers of a bucket, where the model has as many: `stages.tune.engine`'s, which needs torch."""
WHOLE_NUMBERS = 500_000_000
"""At ZeRO 0, where it is no setting: DeepSpeed's MEMORY_OPT_ALLREDUCE_SIZE."""


def bucket_numbers(run: RunShape) -> float:
    """DeepSpeed's reduce_bucket_size. AutoTP divides weights only after it is set."""
    whole = run.held if run.config.parallel.pipeline > 1 else run.model.parameters()
    return min(BUCKET_NUMBERS, whole)


def last_share(run: RunShape) -> float:
    """The part of the gradients that is reduced once a backward pass is over, in DeepSpeed's
    `epilogue`: a last bucket, with the embedding's gradient, which comes last and may be larger.
    """
    table = run.model.vocab_size * run.model.hidden_size
    return min(1.0, max(bucket_numbers(run), table) / run.held)


def bucket_bytes(run: RunShape) -> float:
    """Bytes of the buckets of one worker.

    ZeRO 0 lays out only what it sends. On GPUs ZeRO 1 and 2 fill one bucket while they reduce
    another (overlap_comm), and ZeRO 3 fills one; they are allocated whole, for one worker too. A
    processor has one, of which only pages count that gradients fill; of one worker at ZeRO 1 and 2
    they take the place of the gradients' own pages, as `tests/bench/plan.py` measures.
    """
    parallel, alone = run.config.parallel, run.replicas == 1
    if parallel.zero == 0:
        return 0.0 if alone else 4.0 * min(WHOLE_NUMBERS, run.held)
    if parallel.gpu:
        return 4.0 * bucket_numbers(run) * (1 if parallel.zero == 3 else 2)
    if alone and parallel.zero < 3:
        return 0.0
    return 4.0 * min(BUCKET_NUMBERS, run.held)
