"""What a recipe may say, what it is told when it may not, and which runs share a course."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from model.config import ModelConfig
from stages.pretrain import Config, Retention
from stages.tune.parallel import Parallel


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
        ({"train_tokens": 100}, "both steps .100. and train_tokens .100. are given"),
        ({"steps": None, "train_tokens": float("inf")}, "train_tokens is inf: give a number of"),
        ({"steps": None, "train_tokens": True}, "train_tokens is True: give a number of tokens"),
        ({"mixture": [1, 1]}, r"found \[1, 1\], expected the sources by name: {weights: {web"),
        ({"mixture": {"web": 0.7}}, r"found web: 0.7: write sources under weights: {web: 0.7}"),
        ({"phases": [{"begin": 9}]}, "phases stands beside mixture: write it inside"),
        (
            {"tokens": ["a", "b"], "mixture": {"weights": {"a": 1, "c/books": 1}}},
            r"mixture names 'c/books'; expected one of tokens \(a, b\), or NAME/SOURCE",
        ),
        ({"tokens": ["a", "a"]}, "one of them twice: give it a larger weight"),
        ({"tokens": []}, "tokens is an empty list"),
        (
            {"mixture": {"phases": [{"begin": 9, "weights": {"a": 1}}] * 2}},
            r"begin at steps \[0, 9, 9\]: give rising steps",
        ),
        (
            {"schedule": "cosine", "mixture": {"phases": [{"weights": {"a": 1}}]}},
            "begins at decay, which the schedule cosine has not",
        ),
        ({"start": "s", "model": {"depth": 3}}, "both start .s. and model are given"),
        ({"precision": "float8"}, "precision is float8 and parallel.gpu false: only GPUs"),
        (
            {"precision": "float8", "parallel": {"gpu": True, "workers": 2, "zero": 3}},
            "precision is float8 with parallel.zero 3, where DeepSpeed has layers of its own",
        ),
        (
            {"precision": "float8", "parallel": {"gpu": True}, "model": {"hidden_size": 136}},
            "hidden_size is 136, not a multiple of 16: choose another width, or bfloat16",
        ),
        (
            {"parallel": {"compiled": True, "workers": 2, "tensor": 2}},
            "parallel.compiled is true with parallel.tensor 2: a compiler cannot see through",
        ),
        (
            {"model": {"max_position_embeddings": 128}},
            "sequence_length is 256, longer than the model's max_position_embeddings 128",
        ),
    ],
)
def test_a_mistake_is_explained(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        _config(**fields)


TWO = {"workers": 2}
MODEL = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("parallel", "said"),
    [
        ({"workers": 3, "tensor": 2}, "parallel.workers is 3, not a multiple of parallel.tensor 2"),
        (
            {"workers": [2, 4], "tensor": 2},
            r"\[2, 4\] with parallel.tensor 2: an elastic",
        ),
        ({"workers": 4, "tensor": 2, "pipeline": 2}, "tensor 2 and parallel.pipeline 2 were asked"),
        ({"workers": 2, "sequence": 2, "zero": 3}, "sequence 2 with parallel.zero 3"),
        ({"workers": 4, "tensor": 2, "sequence": 2}, "tensor 2 and parallel.sequence 2 were asked"),
        ({**TWO, "pipeline": 2, "zero": 2}, "pipeline 2 with parallel.zero 2: .* use zero 0 or 1"),
        ({**TWO, "pipeline": 2, "zero": 3}, "pipeline 2 with parallel.zero 3"),
        ({"workers": 4, "pipeline": 4}, "pipeline is 4 and the model has 2 layers"),
        ({"workers": 6, "pipeline": 2}, "32 rows, not a multiple of the 3 pipelines"),
        ({"workers": 4, "tensor": 4}, "num_key_value_heads is 2, which parallel.tensor 4 does not"),
        ({"workers": 3, "tensor": 3}, "num_attention_heads is 4, which parallel.tensor 3 does not"),
        ({"workers": 4, "sequence": 4}, "num_key_value_heads is 2, which parallel.sequence 4 does"),
        ({"offload_optimizer": "cpu"}, "offload_optimizer is set with parallel.zero 0"),
        ({"zero": 2, "offload_weights": "cpu"}, "offload_weights is set with parallel.zero 2"),
        ({"zero": 3, "offload_optimizer": "nvme"}, "offload_optimizer\n  Input should be 'cpu'"),
        ({"zero": 4}, "parallel.zero"),
    ],
)
def test_a_parallel_shape_that_cannot_be_is_refused_by_name(
    parallel: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        _config(model=MODEL, parallel=parallel)


def test_what_a_degree_cannot_divide_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match=r"385, which parallel.tensor 2"):
        _config(model={**MODEL, "intermediate_size": 385}, parallel={**TWO, "tensor": 2})
    with pytest.raises(ValidationError, match=r"255, which parallel.sequence 2"):
        _config(model=MODEL, sequence_length=255, batch_tokens=510, parallel={**TWO, "sequence": 2})
    with pytest.raises(ValidationError, match=r"optimizer is muon with parallel.tensor 2"):
        _config(model=MODEL, optimizer="muon", parallel={**TWO, "tensor": 2})
    with pytest.raises(ValidationError, match=r"muon with parallel.offload_optimizer cpu"):
        _config(optimizer="muon", parallel={"zero": 1, "offload_optimizer": "cpu"})
    sizes = ModelConfig().model_dump() | {"kv_lora_rank": 8, "num_experts": 4}
    with pytest.raises(ValueError, match=r"parallel.tensor is 2 and .* latent attention"):
        Parallel(workers=2, tensor=2).check_sizes(sizes, 256)
    with pytest.raises(ValueError, match=r"pipeline is 2 and .* mixture of experts"):
        Parallel(workers=2, pipeline=2).check_sizes(sizes, 256)
    experts = {"depth": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    with pytest.raises(ValidationError, match=r"tensor is 2 and .* mixture of experts"):
        _config(model=experts, parallel={**TWO, "tensor": 2})
    with pytest.raises(ValidationError, match=r"optimizer is muon and the model has 4 experts"):
        _config(model=experts, optimizer="muon")
    with pytest.raises(
        ValidationError, match=r"float8 and sequence_length is 1000, not a multiple"
    ):
        _config(precision="float8", sequence_length=1000, batch_tokens=2000, parallel={"gpu": True})


def test_the_large_shapes_are_accepted() -> None:
    shape = {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
    }  # fmt: skip
    parallel = Parallel(workers=512, tensor=8, zero=3, rows=1, gpu=True)
    config = _config(model=shape, batch_tokens=1 << 20, parallel=parallel.model_dump())
    assert (config.parallel.data, config.parallel.model_ranks) == (64, 8)


def test_a_run_may_be_as_long_as_tokens_say() -> None:
    config = Config.model_validate({"tokens": "t", "batch_tokens": 1024, "train_tokens": 2.05e4})
    assert config == Config.model_validate({"tokens": "t", "batch_tokens": 1024, "steps": 21})
    assert "train_tokens" not in config.model_dump()
    instead = {"tokens": "t", "batch_tokens": 1024, "steps": None, "train_tokens": 2.05e4}
    assert Config.model_validate(instead) == config
    assert _config(train_tokens=None).steps == 100


def test_a_store_must_hold_all_checkpoints_that_are_kept() -> None:
    assert Retention(last=3).most(steps=1000, saved_every=50) == 3 + 2
    assert Retention(last=3, every=100).most(steps=1000, saved_every=50) == 3 + 2 + 10
    assert Retention(last=3, every=30).most(steps=1000, saved_every=50) == 3 + 2 + 6


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


def test_layers_are_compiled_on_gpus_where_nothing_stands_in_the_way() -> None:
    assert Parallel(gpu=True, workers=2, zero=2).compiles
    assert not Parallel(gpu=True, workers=2, zero=3).compiles
    assert not Parallel(gpu=True, workers=2, tensor=2).compiles
    assert not Parallel(gpu=True, compiled=False).compiles
    assert not Parallel().compiles and Parallel(compiled=True).compiles


def test_a_mixture_of_several_tokens_knows_their_names() -> None:
    """Their ids are hashed in their order: which of them a weight means must be too."""
    mixture = {"weights": {"a": 0.7, "b": 0.3}}
    one, other = (_config(tokens=names, mixture=mixture) for names in (["a", "b"], ["b", "a"]))
    assert one.mixture is not None and other.mixture is not None
    assert one.mixture.tokens == ("a", "b") and other.mixture.tokens == ("b", "a")
    assert Config.model_validate(one.model_dump(mode="json")) == one
    assert _config(mixture=mixture).mixture.tokens == ()  # type: ignore[union-attr]
