"""What is refused before work starts, with the numbers in the sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from cluster.artifact import Artifact
from cluster.errors import UserError
from cluster.storage import LocalStore
from model.tokenizer import Tokenizer
from stages.importing import import_artifact
from stages.planning import check_shapes
from stages.pretrain import Config, EarlyStop
from stages.pretrain.checks import check_course, check_equal_tokenizers
from stages.pretrain.data import TrainingSet
from stages.pretrain.run import run
from stages.recipe import load_recipe
from stages.stage import Context
from stages.tune.checkpoint import FORMAT, find_checkpoints
from tests.dist.ranks import write_tokens
from tests.stages.small import recipe_from, sums, write_model

Dress = Callable[..., Artifact]
TEXTS = [message["content"] for row in sums(200, 3) for message in row["messages"]]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    folder = tmp_path / "tokens"
    tokenizer = Tokenizer.train(TEXTS, 320)
    tokenizer.save(folder / "tokenizer")
    totals = {"train_tokens": 10_000, "vocabulary_size": tokenizer.vocabulary_size,
              "heldout_tokens": 1000, "heldout_bytes": 4000}  # fmt: skip
    (folder / "index.json").write_text(json.dumps(totals))
    return folder


def _refused(said: str, context: Context, inputs: dict[str, Any], **fields: Any) -> None:
    config = Config.model_validate({"tokens": "t", "steps": 30, **fields})
    with pytest.raises(UserError, match=said):
        run(config, inputs, context)


def test_another_tokenizer(
    tokens: Path, tmp_path: Path, as_artifact: Dress, context: Context
) -> None:
    Tokenizer.train(["quite another text, of other words"] * 9, 300).save(tmp_path / "other")
    inputs = {
        "tokens": as_artifact(tokens, "tokens"),
        "tokenizer": as_artifact(tmp_path / "other", "tokenizer"),
    }
    said = r"a tokenizer of \d+ tokens and tokenizer .* has another, of \d+: \d+ tokens have"
    _refused(said, context, inputs, tokenizer="other")


def _other_merges(data: dict[str, Any]) -> None:
    data["model"]["merges"] = data["model"]["merges"][:-1]


def _lower_case(data: dict[str, Any]) -> None:
    data["normalizer"] = {"type": "Lowercase"}


def _space_first(data: dict[str, Any]) -> None:
    data["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True


def _plain_tokens(data: dict[str, Any]) -> None:
    data["added_tokens"][0]["special"] = False


def _written_by_an_older_version(data: dict[str, Any]) -> None:
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    del data["model"]["ignore_merges"]
    data["pre_tokenizer"]["pretokenizers"][1]["trim_offsets"] = False  # decides no number
    data["decoder"] = None


def _without_added_tokens(data: dict[str, Any]) -> None:
    for token in data.pop("added_tokens"):
        data["model"]["vocab"].pop(token["content"], None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_other_merges, r"has the same tokens, but another merges: the same text"),
        (_lower_case, "but another normalizer:"),
        (_space_first, "but another pre_tokenizer:"),
        (_plain_tokens, "but another added_tokens:"),
        (_without_added_tokens, r"has another, of \d+: \d+ tokens have the same number"),
        (lambda data: data.pop("model"), r"tokenizer two: .*json cannot be read as a tokenizer"),
        (_written_by_an_older_version, None),
    ],
)
def test_tokenizers_are_equal_where_they_give_equal_numbers(
    tokens: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str | None
) -> None:
    data = json.loads((tokens / "tokenizer" / "tokenizer.json").read_text())
    change(data)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=said) if said else nullcontext():
        check_equal_tokenizers({"tokens one": tokens / "tokenizer", "tokenizer two": tmp_path})


def test_a_start_with_another_tokenizer(
    tokens: Path, tmp_path: Path, as_artifact: Dress, context: Context
) -> None:
    start = write_model(tmp_path / "model", ["words that sums do not have"] * 9)
    inputs = {
        "tokens": as_artifact(tokens, "tokens"), "start": as_artifact(start, "checkpoint")
    }  # fmt: skip
    _refused("start .* has another", context, inputs, start="s")


def test_a_vocabulary_too_small(tokens: Path, as_artifact: Dress, context: Context) -> None:
    inputs = {"tokens": as_artifact(tokens, "tokens")}
    said = r"model\.vocab_size is 100, too small for tokens numbered up to \d+: expected at least"
    _refused(said, context, inputs, model={"vocab_size": 100})


def test_heads_that_do_not_divide(tokens: Path, as_artifact: Dress, context: Context) -> None:
    inputs = {"tokens": as_artifact(tokens, "tokens")}
    model = {"num_attention_heads": 4, "num_key_value_heads": 3}
    _refused("num_key_value_heads is 3; it must divide", context, inputs, model=model)


def test_a_start_too_short_for_the_sequence(
    tokens: Path, tmp_path: Path, as_artifact: Dress, context: Context
) -> None:
    inputs = {
        "tokens": as_artifact(tokens, "tokens"),
        "start": as_artifact(write_model(tmp_path / "model"), "checkpoint"),
    }
    said = "start .*: sequence_length is 4096, longer than the model's max_position_embeddings 2048"
    _refused(said, context, inputs, start="s", sequence_length=4096, batch_tokens=8192)


def test_a_start_that_lacks_weights(
    tokens: Path, tmp_path: Path, as_artifact: Dress, context: Context
) -> None:
    folder = write_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors")
    inputs = {
        "tokens": as_artifact(tokens, "tokens"), "start": as_artifact(folder, "checkpoint")
    }  # fmt: skip
    _refused(
        r"start .*: the weights .* model\.norm\.weight: found nothing", context, inputs, start="s"
    )


def test_a_start_that_does_not_say_its_tokens(
    tokens: Path, tmp_path: Path, as_artifact: Dress, context: Context
) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    inputs = {
        "tokens": as_artifact(tokens, "tokens"), "start": as_artifact(folder, "checkpoint")
    }  # fmt: skip
    _refused("start .* has no tokenizer.json, so nothing says", context, inputs, start="s")


@pytest.mark.parametrize(
    ("schedule", "reached", "steps", "refused"),
    [
        ("cosine", 60, 80, True),
        ("cosine", 60, 100, False),  # the same run
        ("cosine", 100, 120, False),  # that run is over
        ("wsd", 60, 50, True),
        ("wsd", 60, 400, False),  # goes on from there
        ("wsd", 95, 400, True),  # it decays already, and nothing before that is kept
    ],
)
def test_progress_that_a_run_would_throw_away(
    schedule: str, reached: int, steps: int, refused: bool, tmp_path: Path
) -> None:
    there = tmp_path / "checkpoints" / f"step-{reached:08d}-abc"
    there.mkdir(parents=True)
    state: dict[str, Any] = {"format": FORMAT, "step": reached, "steps": 100}
    (there / "state.json").write_text(json.dumps(state))
    config = Config.model_validate(
        {"tokens": "t", "schedule": schedule, "steps": steps, "warmup_steps": 10,
         "batch_tokens": 128, "sequence_length": 16}
    )  # fmt: skip
    order = TrainingSet(config, {"t": write_tokens(tmp_path / "tokens") / "train"}, seed=1)
    said = rf"holds {reached} of 100 steps of a run that is not finished, and one of {steps} steps"
    with pytest.raises(UserError, match=said) if refused else nullcontext():
        check_course(config, order, find_checkpoints(tmp_path / "checkpoints"))
    stopped = {**state, "heldout_losses": [3.0, 3.1, 3.2]}  # that run ended early: it is over
    (there / "state.json").write_text(json.dumps(stopped))
    ending = config.model_copy(update={"early_stop": EarlyStop(every=5, patience=2)})
    check_course(ending, order, find_checkpoints(tmp_path / "checkpoints"))


def test_a_recipe_that_mixes_tokenizers_is_refused_before_any_stage(tmp_path: Path) -> None:
    recipe = load_recipe(
        "tiny",
        ["stages.small={stage: tokenizer, corpus: corpus, vocabulary_size: 500}",
         "stages.base.tokenizer=small"],
    )  # fmt: skip
    with pytest.raises(UserError, match=r"'tokens' is encoded with tokenizer.*3072.*500"):
        check_shapes(recipe, LocalStore(tmp_path))


def test_a_vocabulary_too_small_is_refused_before_any_stage(tmp_path: Path) -> None:
    recipe = load_recipe("nano", ["stages.base.model.vocab_size=100"])
    said = r"stages\.base\.model\.vocab_size is 100, too small for a tokenizer of 512 tokens"
    with pytest.raises(UserError, match=said):
        check_shapes(recipe, LocalStore(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocabulary": 512}, r"vocab_size is \d+, too small for a tokenizer of 512 tokens"),
        (
            {"parallel": {"workers": 2, "tensor": 2}},
            "num_key_value_heads is 1, which parallel.tensor 2 does not divide",
        ),
    ],
)
def test_an_imported_start_that_does_not_fit_is_refused_before_any_stage(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    store = LocalStore(tmp_path / "store")
    import_artifact(store, write_model(tmp_path / "model"), "llama")
    check_shapes(recipe_from("llama", tmp_path), store)
    with pytest.raises(UserError, match=rf"stages\.base: start llama: {said}"):
        check_shapes(recipe_from("llama", tmp_path, **changes), store)
