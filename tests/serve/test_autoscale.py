"""What Ray Serve is told about load."""

from __future__ import annotations

from serve import autoscale


def test_a_fixed_number_of_replicas_and_a_range() -> None:
    fixed = autoscale.deployment_options(2, None, 16, 1.0)
    assert fixed["num_replicas"] == 2
    assert "autoscaling_config" not in fixed
    ranged = autoscale.deployment_options(1, 4, 16, 1.0)
    assert "num_replicas" not in ranged
    scaling = ranged["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 4)
    # replicas are added before a batch is full, and long before requests are refused
    assert scaling["target_ongoing_requests"] < 16 < autoscale.capacity(16)
    assert autoscale.capacity(16) < ranged["max_ongoing_requests"]
