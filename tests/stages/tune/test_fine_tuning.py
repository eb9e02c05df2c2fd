"""What every stage on TRL refuses of a config, before any worker starts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stages.tune.fine_tuning import FineTuning


@pytest.mark.parametrize(
    ("rows", "workers", "sentence"),
    [
        (32, 3, "batch_rows is 32, not a multiple of the 3 workers of parallel"),
        (32, [2, 4], r"32, .* evenly among 3 workers, .* \[2, 4\] may .* a multiple of 12 rows"),
        (32, [1, 9], r"among 3 or 5 or 6 or 7 \.\.\. workers"),
    ],
)
def test_rows_that_some_size_of_the_group_cannot_share_are_refused(
    rows: int, workers: Any, sentence: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        FineTuning(batch_rows=rows, parallel={"workers": workers})


@pytest.mark.parametrize("workers", [1, 4, [1, 2], [2, 4]])
def test_rows_that_every_size_shares_are_taken(workers: Any) -> None:
    FineTuning(batch_rows=24, parallel={"workers": workers})
