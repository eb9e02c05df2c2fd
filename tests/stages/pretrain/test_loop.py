"""The training loop on one rank: against a plain PyTorch loop, killed and resumed, run longer."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.watch import Watch
from model.config import ModelConfig
from model.transformer import Transformer
from stages.pretrain import DECAY_FRACTION, Config, loop
from stages.pretrain.data import TrainingSet, folders_of
from stages.pretrain.evaluation import loss_by_size
from stages.pretrain.worker import Worker
from stages.text.token_shards import IGNORED_LABEL, TokenShards, TokenWriter
from stages.tune.checkpoint import find_checkpoints
from stages.tune.journal import read_journal

SHAPE = ModelConfig(
    vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, head_dim=8,
)  # fmt: skip


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for split, count in (("train", 60), ("heldout", 20)):
        writer = TokenWriter(tmp_path / "tokens" / split, vocabulary_size=60, end_of_text=0)
        for i in range(count):
            writer.add(f"{split}{i}", draw.integers(4, 60, draw.integers(5, 60)).tolist())
        writer.close()
    return tmp_path / "tokens"


def _job(tokens: Path, scratch: Path, **fields: Any) -> dict[str, Any]:
    config = Config.model_validate(
        {"tokens": "t", "steps": 10, "warmup_steps": 2, "batch_tokens": 128, "sequence_length": 16,
         "learning_rate": 1e-2, "checkpoint_every": 2, "parallel": {"rows": 3}, **fields}
    )  # fmt: skip
    return {
        "config": config.model_dump(mode="json"), "shape": SHAPE.model_dump(), "seed": 5,
        "tokens": str(tokens / "train"), "heldout": str(tokens / "heldout"),
        "scratch": str(scratch),
    }  # fmt: skip


def _losses(scratch: Path) -> list[float]:
    return [line["loss"] for line in read_journal(scratch)]


def _weights(scratch: Path) -> dict[str, torch.Tensor]:
    return find_checkpoints(scratch / "checkpoints")[-1].weights()


def test_losses_equal_a_plain_loop_over_the_same_batches(
    tokens: Path, tmp_path: Path, one_rank: Path
) -> None:
    from model.schedule import learning_rate

    job = _job(tokens, tmp_path / "run", parallel={"rows": 3, "zero": 1})  # 8 rows in 3 pieces
    loop.train(job)
    torch.manual_seed(5)
    model = Transformer(SHAPE)
    tables = {"model.embed_tokens.weight", "lm_head.weight"}
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1 and n not in tables]
    plain = [p for n, p in model.named_parameters() if p.ndim == 1 or n in tables]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )
    expected = []
    for step in range(10):
        batch = TokenShards(tokens / "train").batch(step, 8, 16, 5)
        ids, labels, documents = map(
            torch.from_numpy, (batch.input_ids, batch.labels, batch.document_ids)
        )
        rate = learning_rate(step, 10, 1e-2, 2, "wsd", decay_fraction=DECAY_FRACTION)
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = model(ids, documents).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        expected.append(loss.item())
    assert _losses(tmp_path / "run") == pytest.approx(expected, abs=2e-5)
    assert expected[-1] < expected[0]


def test_compiled_layers_train_as_plain_ones(
    tokens: Path, tmp_path: Path, one_rank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the compiler traces is run as it is: writing it as C++ takes a minute."""
    from torch._dynamo.utils import counters

    traced = functools.partialmethod(torch.nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    for name, fields in (("plain", {}), ("compiled", {"compiled": True})):
        counters.clear()
        parallel = {"rows": 8, "activation_checkpointing": True, **fields}
        try:
            loop.train(_job(tokens, tmp_path / name, steps=3, warmup_steps=1, parallel=parallel))
        finally:
            torch.compiler.set_stance("default")
        assert bool(counters["stats"]["unique_graphs"]) == bool(fields)
    assert _losses(tmp_path / "compiled") == pytest.approx(_losses(tmp_path / "plain"), abs=1e-5)


def test_a_killed_run_ends_with_the_same_bytes(
    tokens: Path, tmp_path: Path, one_rank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.train(_job(tokens, tmp_path / "whole"))

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    job = _job(tokens, tmp_path / "killed")
    with monkeypatch.context() as patch:
        write = loop.Journal.write
        patch.setattr(
            loop.Journal,
            "write",
            lambda self, step, **values: die() if step == 7 else write(self, step, **values),
        )
        with pytest.raises(KeyboardInterrupt):
            loop.train(job)
    begun, checkpoints = time.monotonic(), tmp_path / "killed" / "checkpoints"
    while find_checkpoints(checkpoints)[-1].step < 7 and time.monotonic() - begun < 10:
        time.sleep(0.05)  # it is still being written, beside the training
    assert find_checkpoints(checkpoints)[-1].step == 7  # the decay's start
    loop.train(job)
    assert _losses(tmp_path / "killed") == _losses(tmp_path / "whole")
    ours, theirs = _weights(tmp_path / "killed"), _weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_longer_run_continues_from_where_the_shorter_ones_decay_began(
    tokens: Path, tmp_path: Path, one_rank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.train(_job(tokens, tmp_path / "long"))
    loop.train(_job(tokens, tmp_path / "both", steps=6))
    steps: list[int] = []
    monkeypatch.setattr(
        Worker, "count",
        lambda own, *values, count=Worker.count: (steps.append(own.step), count(own, *values)),
    )  # fmt: skip
    loop.train(_job(tokens, tmp_path / "both"))
    assert steps[0] == 4  # 30 % of 6 steps are its decay
    assert _losses(tmp_path / "both") == _losses(tmp_path / "long")


def test_metrics_count_what_was_spent(
    tokens: Path, tmp_path: Path, one_rank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "report", lambda metrics, *_: said.append(metrics))
    loop.train(_job(tokens, tmp_path / "run"))
    metrics = said[-1]
    assert metrics["parameters"] == sum(p.numel() for p in Transformer(SHAPE).parameters())
    assert (metrics["steps"], metrics["tokens"]) == (10, 1280)
    assert metrics["flops"] == SHAPE.flops_per_token(16) * 1280
    assert 0 < metrics["heldout_loss"] < 6
    assert json.dumps(metrics)
    loop.train(_job(tokens, tmp_path / "run"))  # nothing was left to be done
    last = read_journal(tmp_path / "run")[-1]["tokens_per_second"]
    assert said[-1] == metrics | {"tokens_per_second": last}


def test_every_step_is_measured(tokens: Path, tmp_path: Path, one_rank: Path) -> None:
    loop.train(_job(tokens, tmp_path / "run", evaluate_every=4))
    lines = read_journal(tmp_path / "run")
    for line in lines:
        useful = _flops(tokens, line["step"]) / line["step_seconds"]
        assert line["flops_per_second"] == pytest.approx(useful)
        assert 0 < line["mfu"] < 1 and line["memory_gib"] > 0
        for part in ("data_wait_seconds", "communication_seconds"):
            assert 0 < line[part] < line["step_seconds"]
    assert [line["step"] for line in lines if "heldout_loss" in line] == [3, 7]


def test_the_watch_has_patience_while_the_journal_closes(
    tokens: Path, tmp_path: Path, one_rank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    watches: list[Watch] = []
    monkeypatch.setattr(
        Watch, "__enter__",
        lambda own, enter=Watch.__enter__: (watches.append(own), enter(own))[1],
    )  # fmt: skip
    monkeypatch.setattr(
        loop.Journal, "close",
        lambda own, close=loop.Journal.close: (limits.append(watches[-1].limit_s()), close(own)),
    )  # fmt: skip
    loop.train(_job(tokens, tmp_path / "run", watch={"hang_s": 7.0, "start_s": 500.0}))
    assert limits == [500.0]


def _flops(tokens: Path, step: int) -> float:
    """Of a step, from the pairs of positions that its dense mask leaves."""
    documents = torch.from_numpy(TokenShards(tokens / "train").batch(step, 8, 16, 5).document_ids)
    seen = (documents[:, :, None] == documents[:, None, :]).tril()
    pairs = 4 * SHAPE.num_attention_heads * SHAPE.head_dim * int(seen.sum())
    return 3.0 * (2 * SHAPE.parameters(embedding=False) * documents.numel() + pairs)


def test_sources_are_mixed_and_measured_apart(
    tokens: Path, tmp_path: Path, one_rank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the rows from each of two sources, then one alone; losses by source add up."""
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "report", lambda metrics, *_: said.append(metrics))
    job = _job(tokens, tmp_path / "run", evaluate_every=5, parallel={"rows": 8})
    job["config"]["tokens"] = ["web", "books"]
    job["config"]["mixture"] = {
        "weights": {"web": 1, "books": 1}, "phases": [{"weights": {"books": 1}}], "max_epochs": 9
    }  # fmt: skip
    job["tokens"] = {"web": job["tokens"], "books": str(tokens / "heldout")}
    job["heldout"] = {"web": job["heldout"], "books": str(tokens / "train")}
    loop.train(job)
    first, last = (line for line in read_journal(tmp_path / "run") if "heldout_loss" in line)
    assert {"loss/web", "loss/books", "heldout_loss/web", "heldout_perplexity/books"} <= set(first)
    assert "loss/books" in last and "loss/web" not in last
    assert last["loss/books"] < first["loss/books"]
    data = TrainingSet(Config.model_validate(job["config"]), folders_of(job["tokens"]), 5)
    predicted = (data.batch(4).labels != IGNORED_LABEL).sum(1)
    web, books = (int(predicted[data.row_sources(4) == number].sum()) for number in (0, 1))
    added = (web * first["loss/web"] + books * first["loss/books"]) / (web + books)
    assert added == pytest.approx(first["loss"], rel=1e-6)
    assert last["loss/books"] == pytest.approx(last["loss"], rel=1e-6)
    found = {"heldout_loss/web": 3.0, "heldout_loss/books": 5.0, "heldout_loss": 4.0}
    assert loss_by_size(found, {"web": 300, "books": 100}) == pytest.approx(3.5)
    assert said[-1]["heldout_loss"] == pytest.approx(last["heldout_loss"], rel=1e-6)


def test_how_evenly_experts_are_used_is_logged(
    tokens: Path, tmp_path: Path, one_rank: Path
) -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    shape = ModelConfig(**SHAPE.model_dump() | experts)
    loop.train(_job(tokens, tmp_path / "run") | {"shape": shape.model_dump(mode="json")})
    loads = [line["expert_load"] for line in read_journal(tmp_path / "run")]
    assert len(loads) == 10 and all(1 <= load <= 2 for load in loads), "two of four: at most twice"


def test_a_run_that_no_longer_learns_ends_early_and_stays_ended(
    tokens: Path, tmp_path: Path, one_rank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "report", lambda metrics, *_: said.append(metrics))
    rule = {"every": 2, "patience": 2, "min_improvement": 5.0}
    job = _job(tokens, tmp_path / "run", early_stop=rule)
    loop.train(job)
    assert said[-1]["stopped_early_at"] == said[-1]["steps"] == 6
    assert find_checkpoints(tmp_path / "run" / "checkpoints")[-1].step == 6
    loop.train(job)
    assert said[-1]["steps"] == 6
    assert len(_losses(tmp_path / "run")) == 6


def test_training_goes_on_from_a_hugging_face_folder(
    tokens: Path, tmp_path: Path, one_rank: Path
) -> None:
    """The first loss of the continued run is the loss that transformers gives the same rows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    peer = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        )
    )  # fmt: skip
    peer.save_pretrained(tmp_path / "peer")
    from model.pretrained import read_config

    job = _job(tokens, tmp_path / "run", parallel={"rows": 8}, start="s")
    job |= {"start": str(tmp_path / "peer"), "shape": read_config(tmp_path / "peer").model_dump()}
    loop.train(job)
    batch = TokenShards(tokens / "train").batch(0, 8, 16, 5)
    ids, labels = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.labels)
    documents = torch.from_numpy(batch.document_ids)
    same = documents[:, :, None] == documents[:, None, :]
    mask = torch.zeros(8, 1, 16, 16).masked_fill_(~same.tril()[:, None], float("-inf"))
    logits = peer(ids, attention_mask=mask).logits.flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=-100)
    assert _losses(tmp_path / "run")[0] == pytest.approx(loss.item(), abs=2e-5)
