"""A crew that finds no place in the cluster says so, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from cluster.pool import PoolBroken
from stages.reinforce.actors import Crew
from stages.reinforce.learner import LearnerSettings
from tests.stages.reinforce.tiny import tiny_checkpoint

pytestmark = pytest.mark.dist


@ray.remote
class Guest:
    """Holds its CPUs as long as it lives."""


def test_a_learner_without_a_place_is_an_error(tmp_path: Path, ray_session: None) -> None:
    guest = Guest.options(num_cpus=ray.cluster_resources()["CPU"]).remote()
    ray.get(guest.__ray_ready__.remote())
    try:
        with (
            Crew(
                tiny_checkpoint(tmp_path / "model"), LearnerSettings(learning_rate=1e-3, longest=8),
                workers=1, threads=1, start_s=1.0,
            ) as crew,
            pytest.raises(PoolBroken, match=r"did not start within 1 s.*the cluster has \d+, 0 of"),
        ):  # fmt: skip
            crew.ask("shape")
    finally:
        ray.kill(guest)
