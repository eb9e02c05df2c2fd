"""What scales replicas, and how they drain.

Ray Serve compares the requests in flight with a target per replica. A replica's engine decodes
`sequences` requests together; beyond that they wait. So the target is a nearly full batch, replicas
grow before the queue does, and a replica takes at most `REQUESTS_PER_SEQUENCE` batches before it
answers 429. Unbounded `max_ongoing_requests` would hide the load from the autoscaler.
"""

from __future__ import annotations

from typing import Any

REQUESTS_PER_SEQUENCE = 4
"""Requests a replica holds for each sequence it can decode at once, before 429."""
REFUSALS = 16
"""Slots above that, in which a replica says 429 itself instead of letting requests pile up."""
DRAIN_S = 30.0
"""How long a leaving replica waits for running requests."""


def capacity(sequences: int) -> int:
    """Requests one replica holds before it answers 429."""
    return REQUESTS_PER_SEQUENCE * sequences


def deployment_options(
    replicas: int, max_replicas: int | None, sequences: int, cpus: float
) -> dict[str, Any]:
    """Options for the Ray Serve deployment: a fixed number of replicas, or a range that scales."""
    options: dict[str, Any] = {
        "max_ongoing_requests": capacity(sequences) + REFUSALS,
        "max_queued_requests": -1,
        "graceful_shutdown_timeout_s": DRAIN_S,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
        "ray_actor_options": {"num_cpus": cpus},
    }
    if max_replicas is None or max_replicas <= replicas:
        return options | {"num_replicas": replicas}
    return options | {
        "autoscaling_config": {
            "min_replicas": replicas,
            "initial_replicas": replicas,
            "max_replicas": max_replicas,
            "target_ongoing_requests": max(1.0, 0.8 * sequences),
            "upscale_delay_s": 5,
            "downscale_delay_s": 120,
        }
    }
