"""From names to numbers: weights, epochs and caps hold, over sources and whole artifacts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cluster.errors import UserError
from stages.text.data_plan import DataPlan, Source
from stages.text.mixture import Mixture
from stages.text.mixture_plan import plan_mixture

LENGTH, ROWS, STEPS = 8, 8, 1000
ONE = [
    Source("crawl", 0, 0, 60_001),  # 7500 windows
    Source("books", 0, 60_001, 8_001),  # 1000
    Source("code", 0, 68_002, 16_003),  # 2000
]
TWO = [
    Source("web/crawl", 0, 0, 60_001),
    Source("web/books", 0, 60_001, 8_001),
    Source("more", 1, 0, 16_003),
]


def plan(
    written: dict[str, Any],
    sources: list[Source] = ONE,
    artifacts: tuple[str, ...] = ("tokens",),
    steps: int = STEPS,
    decay_start: int = 700,
) -> DataPlan:
    return plan_mixture(
        Mixture.model_validate(written), artifacts, sources,
        length=LENGTH, rows=ROWS, steps=steps, seed=17, decay_start=decay_start,
    )  # fmt: skip


def shares(made: DataPlan, first: int = 0, last: int = STEPS) -> dict[str, int]:
    counts = zip(made.taken(last), made.taken(first) if first else [0] * 9, strict=False)
    found = {source.name: b - a for source, (b, a) in zip(made.sources, counts, strict=True)}
    return {name: count for name, count in found.items() if count}


def test_weights_hold_in_every_phase() -> None:
    made = plan(
        {
            "weights": {"crawl": 0.7, "books": 0.1, "code": 0.2},
            "phases": [{"weights": {"books": 3, "code": 1}}],
            "max_epochs": 10,
        }
    )
    assert shares(made, 0, 700) == {"crawl": 3920, "books": 560, "code": 1120}
    assert shares(made, 700) == {"books": 1800, "code": 600}
    assert sum(made.taken(STEPS)) == STEPS * ROWS


def test_the_rest_is_shared_by_size() -> None:
    found = shares(plan({"weights": {"*": 0.5, "books": 0.5}}))
    assert found == pytest.approx({"crawl": 4000 * 75 / 95, "books": 4000, "code": 842}, abs=1)
    assert shares(plan({})) == pytest.approx({"crawl": 5714, "books": 762, "code": 1524}, abs=1)


def test_epochs_are_exact_and_weights_share_what_they_leave() -> None:
    made = plan({"epochs": {"books": 2.5, "code": 0.25}, "weights": {"crawl": 1}})
    assert shares(made) == {"crawl": 5000, "books": 2500, "code": 500}
    made = plan({"weights": {"crawl": 1}, "phases": [{"epochs": {"books": 1}}]})
    assert shares(made, 700)["books"] == 1000


def test_a_cap_bounds_repetition_and_the_last_phase_goes_first() -> None:
    made = plan(
        {
            "weights": {"crawl": 0.5, "books": 0.5},
            "phases": [{"begin": 800, "weights": {"books": 1}}],
            "caps": {"books": 2.5},
        }
    )
    assert made.epochs(STEPS)["books"] == 2.5
    assert shares(made, 800) == {"books": 1600}  # whole; the phase before has what is left
    assert shares(made, 0, 800) == {"books": 900, "crawl": 5500}
    half = shares(made, 0, 400)  # and is spread over all of it
    assert half == pytest.approx({"books": 450, "crawl": 2750}, abs=1)


def test_no_cap_is_passed_by_rounding() -> None:
    for steps in range(1, 240):
        made = plan({"weights": {"books": 1, "code": 2}, "max_epochs": 1}, steps=steps)
        assert all(passes <= 1 for passes in made.epochs(steps).values())
    with pytest.raises(UserError, match="caps"):
        plan({"weights": {"books": 1, "code": 2}, "max_epochs": 1}, steps=376)


def test_names_mean_artifacts_and_their_sources() -> None:
    two = ("web", "more")
    made = plan({"weights": {"web": 1, "more": 1}, "max_epochs": 9}, TWO, two)
    size = 4000 / 8500
    whole = {"web/crawl": 7500 * size, "web/books": 1000 * size, "more": 4000}
    assert shares(made) == pytest.approx(whole, abs=1)
    made = plan({"weights": {"web": 1, "web/books": 1, "*": 2}, "max_epochs": 9}, TWO, two)
    assert shares(made) == {"web/crawl": 2000, "web/books": 2000, "more": 4000}
    made = plan({"weights": {"more": 1}, "epochs": {"web": 0.5}}, TWO, two)
    assert shares(made) == {"web/crawl": 3750, "web/books": 500, "more": 3750}
    made = plan({"weights": {"tokens/books": 1, "tokens": 7}, "max_epochs": 9})
    assert shares(made)["books"] == 1000
    capped = {"weights": {"*": 1}, "caps": {"web": 0.1}, "max_epochs": 9}
    assert shares(plan(capped, TWO, two)) == {"web/crawl": 750, "web/books": 100, "more": 7150}


def test_a_longer_run_begins_with_the_same_batches() -> None:
    written = {"weights": {"crawl": 0.6, "books": 0.1, "code": 0.3},
               "phases": [{"weights": {"books": 1}}], "max_epochs": 9}  # fmt: skip
    short, long = plan(written), plan(written, steps=1500, decay_start=1050)
    assert short.agrees_until(long) == 700
    assert [short.start(699, row) for row in range(ROWS)] == [
        long.start(699, row) for row in range(ROWS)
    ]
    with_epochs = {"weights": {"*": 1}, "epochs": {"books": 2}}
    assert plan(with_epochs).agrees_until(plan(with_epochs, steps=1500)) == 0


def test_a_phase_that_the_run_does_not_reach_takes_nothing() -> None:
    written = {"weights": {"books": 1}, "phases": [{"begin": 100, "epochs": {"code": 9}}]}
    assert shares(plan(written, steps=100), 0, 100) == {"books": 800}


def test_without_caps_a_small_source_may_be_read_for_ever() -> None:
    made = plan_mixture(
        Mixture(max_epochs=math.inf), ["a", "b"], [Source("a", 0, 0, 17), Source("b", 1, 0, 17)],
        length=8, rows=4, steps=10**6, seed=0, decay_start=0,
    )  # fmt: skip
    assert made.epochs(10**6) == {"a": 10**6, "b": 10**6}


def test_weights_written_in_another_order_are_the_same_plan() -> None:
    names = {"crawl": 0.1, "books": 0.2, "code": 0.3}
    again = dict(reversed(names.items()))
    assert plan({"weights": names, "max_epochs": 9}) == plan({"weights": again, "max_epochs": 9})


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"weights": {"wiki": 1}}, r"names 'wiki', but the tokens come from 'crawl', 'books', 'co"),
        ({"caps": {"wiki": 1}}, "names 'wiki'"),
        ({"weights": {"books": 1}}, r"0 to 1000 ask for 8000 .* 4000 more than the caps leave "),
        ({"weights": {"books": 1}}, r"\(books 4000\): raise max_epochs or caps, name more sour"),
        (
            {"epochs": {"books": 9}},
            "ask for 9 epochs of 'books', more than its cap leaves .4.: ",
        ),
        ({"epochs": {"crawl": 3}}, "8000 samples and `epochs` asks for 22500: ask for fewer"),
        (
            {"weights": {"*": 1, "crawl": 1, "books": 1, "code": 1}},
            r"gives '\*' a share, and all its sources have one of their own: leave '\*' out",
        ),
        ({"weights": {"tiny": 1}}, "'tiny' holds too few tokens for one sequence"),
    ],
)
def test_what_cannot_be_is_the_users_error(written: dict[str, Any], said: str) -> None:
    sources = [*ONE, Source("tiny", 0, 90_000, 8)] if "tiny" in str(written) else ONE
    with pytest.raises(UserError, match=said):
        plan(written, sources)
