"""lm-evaluation-harness over our model: the same log-likelihoods as transformers', no network."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.tokenizer import Tokenizer
from model.transformer import Transformer
from stages.tasks.multiple_choice import draw_items


@pytest.fixture(scope="module")
def harness() -> Any:
    from stages.evaluate import harness

    return harness


@pytest.fixture(scope="module")
def reference(save_model: Callable[..., Path]) -> Any:
    """The same weights in transformers."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(save_model(), dtype=torch.float32).eval()


def request(harness: Any, kind: str, *arguments: Any) -> Any:
    return harness.Instance(kind, {}, arguments, 0)


def logprobs(reference: Any, ids: list[int]) -> torch.Tensor:
    """[tokens - 1]: log p of each token but the first."""
    with torch.no_grad():
        scores = reference(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return scores.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def test_loglikelihood_equals_transformers(
    harness: Any, reference: Any, tiny_model: Transformer, tokenizer: Tokenizer
) -> None:
    adapter = harness.TransformerLM(tiny_model, tokenizer, 512)
    pairs = [
        ("Mia lives in", " Riverton"),
        ("Tom", " lives in Oldtown, floor 3."),
        ("", "李雷 lives"),
    ]
    found = adapter.loglikelihood(
        [request(harness, "loglikelihood", *pair) for pair in pairs], disable_tqdm=True
    )
    for (context, continuation), (value, greedy) in zip(pairs, found, strict=True):
        ids = tokenizer.encode(context + continuation)
        start = len(tokenizer.encode(context))
        if not context:
            ids, start = [tokenizer.end_of_text_id, *ids], 1
        wanted = logprobs(reference, ids)[start - 1 :]
        assert value == pytest.approx(float(wanted.sum()), abs=1e-3)
        assert greedy is False


def test_greedy_continuation_is_known_as_greedy(
    harness: Any, tiny_model: Transformer, tokenizer: Tokenizer
) -> None:
    adapter = harness.TransformerLM(tiny_model, tokenizer, 512)
    [text] = adapter.generate_until(
        [request(harness, "generate_until", "Mia lives in", {"until": [], "max_gen_toks": 5})]
    )
    ids = tokenizer.encode("Mia lives in")
    with torch.no_grad():
        for _ in range(5):
            ids.append(int(tiny_model(torch.tensor([ids]))[0, -1].argmax()))
    assert tokenizer.decode(ids) == "Mia lives in" + text
    [cut] = adapter.generate_until(
        [request(harness, "generate_until", "Mia", {"until": text[:2], "max_gen_toks": 5})]
    )
    assert text[:2] not in cut


def test_rolling_scores_every_token_once(
    harness: Any, reference: Any, tiny_model: Transformer, tokenizer: Tokenizer
) -> None:
    text = "Mia lives in Riverton, floor 3. Tom lives in Oldtown, floor 9. Ana lives."
    ids = [tokenizer.end_of_text_id, *tokenizer.encode(text)]
    whole = harness.TransformerLM(tiny_model, tokenizer, 512)
    [value] = whole.loglikelihood_rolling([request(harness, "loglikelihood_rolling", text)])
    assert value == pytest.approx(float(logprobs(reference, ids).sum()), abs=1e-2)

    length = 8
    windows = harness.TransformerLM(tiny_model, tokenizer, length)
    [value] = windows.loglikelihood_rolling([request(harness, "loglikelihood_rolling", text)])
    wanted, done = 0.0, 1
    while done < len(ids):
        end = min(len(ids), done + length - 1)
        start = max(0, end - length)
        wanted += float(logprobs(reference, ids[start:end])[done - start - 1 :].sum())
        done = end
    assert value == pytest.approx(wanted, abs=1e-2)


@pytest.mark.parametrize("chat", [False, True])
def test_facts_are_asked_offline_and_scored_as_by_hand(
    harness: Any,
    chat: bool,
    tiny_model: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the harness reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    questions = draw_items(5, 10)
    harness.write_task(tmp_path / "facts", questions, chat)
    found = harness.facts_accuracy(tiny_model, tokenizer, tmp_path / "facts", 512, chat)

    def likelihood(question: str, choice: str) -> float:
        if chat:
            message = {"role": "user", "content": question}
            prompt, _ = tokenizer.encode_chat([message], add_generation_prompt=True)
            ids = prompt + tokenizer.encode(choice)
        else:
            prompt = tokenizer.encode(f"Question: {question}\nAnswer:")
            ids = prompt + tokenizer.encode(" " + choice)
        with torch.no_grad():
            scores = tiny_model(torch.tensor([ids]))[0, :-1].log_softmax(-1)
        chosen = scores.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        return float(chosen[len(prompt) - 1 :].sum())

    wanted = [
        float(np.argmax([likelihood(q["question"], c) for c in q["choices"]]) == q["answer"])
        for q in questions
    ]
    assert found == wanted
    assert 0 < sum(wanted) < len(wanted)
