"""The whole stage on tiny random models: what it writes, that it repeats, and what it refuses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.artifact import Artifact
from cluster.errors import UserError
from stages.evaluate import STAGE, EvaluateConfig
from stages.evaluate.certificate import check_certificate
from stages.stage import Context
from stages.tasks.problem import read_problems
from stages.text.decontamination import Decontaminator, certificate
from stages.text.documents import Document, write_documents

SMALL = {
    "samples": 4,
    "samples_elsewhere": 2,
    "problems_per_task": 2,
    "max_new_tokens": 8,
    "preference_prompts": 3,
    "preference_samples": 2,
    "facts": 6,
    "heldout_tokens": 400,
    "sequence_length": 32,
    "overlap": 8,
    "shown_answers": 6,
    "workers": 0,
    "lm_eval": False,
}


@pytest.fixture
def world(
    save_model: Callable[..., Path],
    as_artifact: Callable[..., Artifact],
    tokens_folder: Path,
    problems_folder: Path,
    preferences_folder: Path,
) -> dict[str, Any]:
    """A family: base -> sft -> ppo -> rlvr, a distilled pair, and a reward model's manifest."""
    base = as_artifact(save_model(), "checkpoint", "pretrain")
    sft = as_artifact(save_model(0.05, 1), "checkpoint", "sft", {"model": [base.id]})
    ppo = as_artifact(save_model(0.05, 2), "checkpoint", "ppo", {"model": [sft.id]})
    rlvr = as_artifact(save_model(0.05, 3), "checkpoint", "rlvr", {"model": [ppo.id]})
    more = as_artifact(
        save_model(0.05, 4), "checkpoint", "sft", {"model": [ppo.id], "compute_of": [rlvr.id]}
    )
    student = as_artifact(
        save_model(0.05, 5), "checkpoint", "distill", {"model": [base.id], "teacher": [rlvr.id]}
    )
    alone = as_artifact(save_model(0.05, 6), "checkpoint", "distill", {"model": [base.id]})
    judge = as_artifact(
        save_model(),
        "checkpoint",
        "reward",
        {"model": [sft.id]},
        accuracy=0.7,
        accuracy_low=0.6,
        accuracy_high=0.8,
    )
    return {
        "models": [base, sft, ppo, rlvr, more, student, alone],
        "tokens": as_artifact(tokens_folder, "tokens", "tokens"),
        "problems": as_artifact(problems_folder, "examples", "examples"),
        "preferences": as_artifact(preferences_folder, "examples", "examples"),
        "reward": judge,
    }


def names_of(world: dict[str, Any]) -> dict[str, str]:
    names = ["base", "chat", "aligned", "reasoner", "continued", "student", "student_alone"]
    return {model.id: name for model, name in zip(world["models"], names, strict=True)}


def configure(**more: Any) -> EvaluateConfig:
    return EvaluateConfig(models=["m"], tokens="t", **{**SMALL, **more})


def test_measures_a_family(world: dict[str, Any], context: Context) -> None:
    context = replace(context, names=names_of(world))
    metrics = STAGE.run(configure(), world, context)

    scores = json.loads((context.out / "scores.json").read_text())
    models = scores["models"]
    assert list(models) == list(names_of(world).values())
    assert models["continued"]["role"] == "sft_continued"
    assert models["student_alone"]["role"] == "distill_alone"
    assert list(models["base"]["pass_at_k"]) == ["1", "2", "4"]
    assert list(models["student"]["pass_at_k"]) == ["1", "2"]
    assert models["reasoner"]["samples"] == 4 * 6
    assert set(models["reasoner"]["pass_at_k_by_task"]) == {"arithmetic", "format", "code"}
    assert all(0 < model["bits_per_byte"][0] < 20 for model in models.values())
    assert "win_rate_vs_sft" in models["aligned"] and "win_rate_vs_sft" not in models["chat"]
    # sentences from one small template: a 5-gram model is good at them, random weights are not
    assert scores["ngram"]["bits_per_byte"][0] < 2 < models["base"]["bits_per_byte"][0]

    gates = {gate["name"]: gate for gate in scores["gates"]}
    assert not gates["base_beats_ngram"]["passed"] and gates["reward_accuracy"]["passed"]
    assert set(gates) == {
        "base_beats_ngram",
        "reward_accuracy",
        "ppo_wins_against_sft",
        "rlvr_parent_in_range",
        "rlvr_gain",
        "distill_beats_no_teacher",
    }
    assert metrics["gates_failed"] == [n for n, gate in gates.items() if not gate["passed"]]

    samples = [json.loads(line) for line in (context.out / "samples.jsonl").open()]
    by_model = {name: [s["prompt"] for s in samples if s["model"] == name] for name in models}
    assert all(prompts == by_model["base"] for prompts in by_model.values())
    assert len(by_model["base"]) == 6


def test_batch_size_changes_no_score(
    world: dict[str, Any], context: Context, tmp_path: Path
) -> None:
    world = {**world, "models": world["models"][:2]}
    other = replace(context, out=tmp_path / "other")
    other.out.mkdir()
    STAGE.run(configure(), world, context)
    STAGE.run(configure(batch=3), world, other)
    for name in ("scores.json", "samples.jsonl"):
        assert (context.out / name).read_bytes() == (other.out / name).read_bytes()


def test_works_with_only_models_and_tokens(world: dict[str, Any], context: Context) -> None:
    inputs = {"models": world["models"][:1], "tokens": world["tokens"]}
    STAGE.run(configure(), {**dict.fromkeys(("problems", "preferences")), **inputs}, context)
    scores = json.loads((context.out / "scores.json").read_text())
    assert [gate["name"] for gate in scores["gates"]] == ["base_beats_ngram"]
    assert (context.out / "samples.jsonl").read_text() == ""


@pytest.mark.parametrize("leak", [False, True])
def test_the_corpus_certificate_is_checked(
    world: dict[str, Any],
    context: Context,
    as_artifact: Callable[..., Artifact],
    tmp_path: Path,
    leak: bool,
) -> None:
    problems = read_problems(world["problems"].path)
    asked = [problem.prompt for problem in problems if problem.split == "eval"]
    text = f"Some page. {asked[0].upper()} And more." if leak else "A page about the weather."
    document = Document("id", text, "http://a", "crawl", "en")
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_documents([document], folder / "documents-00000.parquet")
    stated = certificate(Decontaminator(asked), asked, Counter({"exact": 3}))
    (folder / "decontamination.json").write_text(json.dumps(stated))
    inputs = {
        "models": world["models"][:1],
        "tokens": world["tokens"],
        "problems": world["problems"],
        "corpus": as_artifact(folder, "corpus", "corpus"),
    }
    STAGE.run(configure(), inputs, context)
    gate = json.loads((context.out / "scores.json").read_text())["gates"][0]
    assert (gate["name"], gate["passed"]) == ("decontaminated", not leak)
    assert gate["value"] == float(leak)
    assert "lost 3 documents" in gate["sentence"]


def test_a_certificate_about_other_problems_certifies_nothing(tmp_path: Path) -> None:
    document = Document("id", "A page about the weather.", "http://a", "crawl", "en")
    write_documents([document], tmp_path / "documents-00000.parquet")
    other = certificate(Decontaminator(["another question"]), ["another question"], Counter())
    (tmp_path / "decontamination.json").write_text(json.dumps(other))
    assert not check_certificate(tmp_path, [])["certified"]


def test_refuses_a_reward_model_among_the_models(world: dict[str, Any], context: Context) -> None:
    with pytest.raises(UserError, match="name it under `reward`"):
        STAGE.run(configure(), {**world, "models": [world["reward"]]}, context)


def test_refuses_a_model_of_another_tokenizer(
    world: dict[str, Any], context: Context, tmp_path: Path, as_artifact: Callable[..., Artifact]
) -> None:
    from model import pretrained
    from model.tokenizer import Tokenizer

    folder = tmp_path / "stranger"
    pretrained.save(pretrained.load(world["models"][0].path), folder)
    Tokenizer.train(["altogether different words"], 290).save(folder)
    stranger = as_artifact(folder, "checkpoint", "sft")
    with pytest.raises(UserError, match="another tokenizer"):
        STAGE.run(configure(), {"models": [stranger], "tokens": world["tokens"]}, context)


def test_refuses_a_reward_without_accuracy(world: dict[str, Any], context: Context) -> None:
    inputs = {"models": world["models"][:1], "tokens": world["tokens"], "reward": world["tokens"]}
    with pytest.raises(UserError, match="no metric accuracy"):
        STAGE.run(configure(), inputs, context)


@pytest.mark.dist
@pytest.mark.usefixtures("ray_session")
def test_actors_measure_what_one_process_does(
    world: dict[str, Any], context: Context, tmp_path: Path
) -> None:
    world = {**world, "models": world["models"][:2]}
    other = replace(context, out=tmp_path / "other")
    other.out.mkdir()
    assert STAGE.run(configure(), world, context) == STAGE.run(configure(workers=2), world, other)
    scores, same = (json.loads((x.out / "scores.json").read_text()) for x in (context, other))
    assert scores == same
    samples = [(x.out / "samples.jsonl").read_bytes() for x in (context, other)]
    assert samples[0] == samples[1]
