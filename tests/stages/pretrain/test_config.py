"""What a recipe may say, what it is told when it may not, and which runs share a course."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from model.config import ModelConfig
from stages.pretrain import Config


def _config(**fields: object) -> Config:
    return Config.model_validate({"tokens": "t", "steps": 100, **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch_tokens": 1000}, "not a multiple of sequence_length 256"),
        ({"batch_tokens": 256, "parallel": {"workers": 2}}, "1 rows, too few for 2 workers"),
        ({"steps": 10}, "warmup_steps is 20 but the run has 10 steps"),
        ({"parallel": {"workers": [3, 2]}}, "the smaller first|least, most"),
        ({"paralel": {}}, "paralel"),
        (
            {"model": {"max_position_embeddings": 128}},
            "sequence_length is 256, longer than the model's max_position_embeddings 128",
        ),
    ],
)
def test_a_mistake_is_explained(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        _config(**fields)


def test_the_dial_and_the_sizes_give_a_shape() -> None:
    dial = ModelConfig(**_config(model={"depth": 4}).model.sizes(4096))
    assert dial.parameters() == 1_312_128
    mixed = _config(model={"depth": 4, "intermediate_size": 512}).model.sizes(100)
    assert mixed == dial.model_dump() | {"vocab_size": 100, "intermediate_size": 512}


def test_a_longer_run_shares_the_course_until_the_decay() -> None:
    config = _config(steps=200)
    assert config.decay_start == 140
    assert config.shares_course(70, steps=100)  # where the shorter run's decay begins
    assert not config.shares_course(71, steps=100)
    assert config.shares_course(190, steps=200)
    assert not _config(schedule="cosine").shares_course(10, steps=200)


def test_shared_course_means_equal_learning_rates() -> None:
    from model.schedule import learning_rate
    from stages.pretrain import DECAY_FRACTION

    def rates(steps: int) -> list[float]:
        return [
            learning_rate(i, steps, 1.0, 20, "wsd", decay_fraction=DECAY_FRACTION)
            for i in range(steps)
        ]

    short, long = rates(100), rates(200)
    shared = next(i for i in range(100) if short[i] != long[i])
    config = _config(steps=200)
    assert max(s for s in range(101) if config.shares_course(s, steps=100)) == shared - 1 or (
        config.shares_course(shared, steps=100)
    )
    assert not config.shares_course(shared + 1, steps=100)
