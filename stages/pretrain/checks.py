"""What a pretraining run refuses before any worker starts, with the numbers that do not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.artifact import Artifact
from cluster.errors import UserError
from model.config import ModelConfig
from stages.pretrain import Config
from stages.pretrain.data import TrainingSet
from stages.pretrain.evaluation import Stopping
from stages.tune.checkpoint import Checkpoint

TOKENIZER = "tokenizer.json"


def totals_of(tokens: Artifact) -> dict[str, Any]:
    """The counts in a tokens artifact's index."""
    return dict(json.loads(tokens.file("index.json").read_text(encoding="utf-8")))


def check_tokens(
    config: Config, tokens: Sequence[Artifact], tokenizer: Artifact | None, start: Artifact | None
) -> None:
    """Enough text in each artifact, and one tokenizer for all that speaks of tokens."""
    for artifact in tokens:
        count = totals_of(artifact)["train_tokens"]
        if count <= config.sequence_length:
            raise UserError(
                f"artifact {artifact.id} holds {count} training tokens, fewer than one "
                f"sequence of {config.sequence_length}: give the corpus more text, or shorten it"
            )
    said = {f"tokens {artifact.id}": artifact.path / "tokenizer" for artifact in tokens}
    if tokenizer is not None:
        said[f"tokenizer {tokenizer.id}"] = tokenizer.path
    if start is not None:
        said[f"start {start.id}"] = start.path
        if tokenizer is None and not (start.path / TOKENIZER).is_file():
            raise UserError(without_tokenizer(start.id))
    check_equal_tokenizers(said)


def without_tokenizer(start: str) -> str:
    """Why a model to go on from is refused that has no tokenizer, where the recipe names none."""
    return (
        f"start {start} has no {TOKENIZER}, so nothing says that its token numbers are those of "
        "the tokens: import its tokenizer, encode the corpus with that, and name it here too "
        "(tokenizer: NAME)"
    )


def check_equal_tokenizers(said: Mapping[str, Path]) -> None:
    """Refuse folders, by what a sentence calls them, whose tokenizers differ; some have none."""
    files = {name: path / TOKENIZER for name, path in said.items()}
    known = [(name, path) for name, path in files.items() if path.is_file()]
    for other in known[1:]:
        _check_equal(known[0], other)


def _check_equal(one: tuple[str, Path], other: tuple[str, Path]) -> None:
    """Two tokenizers must make the same numbers of every text."""
    (name, path), (other_name, other_path) = one, other
    rules, other_rules = encoding_rules(name, path), encoding_rules(other_name, other_path)
    ids, other_ids = rules.pop("vocabulary"), other_rules.pop("vocabulary")
    advice = "Encode the corpus with the one that the model knows (`tokens` with that `tokenizer`)"
    if ids != other_ids:
        shared = sum(other_ids.get(token) == number for token, number in ids.items())
        raise UserError(
            f"{name} was made with a tokenizer of {len(ids)} tokens and {other_name} has another, "
            f"of {len(other_ids)}: {shared} tokens have the same number in both. {advice}"
        )
    differing = [rule for rule, value in rules.items() if value != other_rules[rule]]
    if differing:
        raise UserError(
            f"{name} was made with a tokenizer of {len(ids)} tokens and {other_name} has the same "
            f"tokens, but another {', '.join(differing)}: the same text becomes other numbers. "
            f"{advice}"
        )


def encoding_rules(name: str, tokenizer_json: Path) -> dict[str, Any]:
    """All that decides which numbers a text becomes: "vocabulary" is token -> number, special
    tokens included. As the library writes it, since its versions have written it differently.
    """
    import tokenizers

    try:
        data = json.loads(tokenizers.Tokenizer.from_file(str(tokenizer_json)).to_str())
    except Exception as error:  # the library raises no class of its own
        raise UserError(
            f"{name}: {tokenizer_json} cannot be read as a tokenizer ({error}); expected one that "
            "the package tokenizers wrote"
        ) from error
    model, added = data["model"], data["added_tokens"]
    vocabulary, scores = model.pop("vocab"), None
    if isinstance(vocabulary, list):  # a unigram model: [token, score] by number
        scores = [score for _, score in vocabulary]
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    return {
        "vocabulary": {**vocabulary, **{token["content"]: token["id"] for token in added}},
        "scores": scores,
        "merges": model.pop("merges", None),
        "model": model,
        "normalizer": data["normalizer"],
        "pre_tokenizer": _without_offsets(data["pre_tokenizer"]),
        "added_tokens": sorted(added, key=lambda token: int(token["id"])),
    }


def _without_offsets(part: Any) -> Any:
    """A tokenizer's part without what only decides where a token lies in the text."""
    if isinstance(part, dict):
        return {k: _without_offsets(v) for k, v in part.items() if k != "trim_offsets"}
    return [_without_offsets(entry) for entry in part] if isinstance(part, list) else part


def shape_of(config: Config, vocabulary: int, start: Artifact | None) -> ModelConfig:
    """The model to train: the start's, or the config's with the tokens' vocabulary.

    A UserError where it does not fit the tokens, or cannot be trained as the config says.
    """
    if start is None:
        try:
            shape = ModelConfig(**config.model.sizes(vocabulary))
        except ValidationError as error:
            faults = [str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors()]
            raise UserError(f"model: {'; '.join(faults)}") from error
        place = "model.vocab_size"
    else:
        from model.pretrained import read_config

        try:
            shape = read_config(start.path)
            config.check_shape(shape.model_dump())
            check_weights(start.path, shape)
        except ValueError as error:
            raise UserError(f"start {start.id}: {error}") from error
        place = f"the vocabulary of start {start.id}"
    if shape.vocab_size < vocabulary:
        raise UserError(
            f"{place} is {shape.vocab_size}, too small for tokens numbered up to {vocabulary - 1}: "
            f"expected at least {vocabulary}"
        )
    return shape


def check_weights(folder: Path, shape: ModelConfig) -> None:
    """Raise ValueError where a file is lost or cut short, or tensors are not the shape's."""
    from model.weight_files import WeightFiles

    WeightFiles(folder, shape)


def check_course(config: Config, order: TrainingSet, found: Sequence[Checkpoint]) -> None:
    """Refuse to begin anew, or to end sooner, where a run of another length is half done.

    One that is longer goes on from the last checkpoint with its learning rates and data.
    """
    last, steps = found[-1], int(found[-1].state["steps"])
    fitting = [
        c.step
        for c in found
        if config.shares_course(c.step, c.state["steps"])
        and order.shares_order(c.step, c.state["steps"])
    ]
    over = Stopping(config.early_stop, last.state.get("heldout_losses", ())).due
    if last.step < steps and not over and (not fitting or config.steps < last.step):
        raise UserError(
            f"{last.place} holds {last.step} of {steps} steps of a run that is not finished, and "
            f"one of {config.steps} steps cannot go on from there (schedule {config.schedule}): "
            f"finish that one with steps {steps}, change the seed to train beside it, or remove "
            "the folder to begin anew"
        )
