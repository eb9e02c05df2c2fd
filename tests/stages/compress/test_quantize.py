"""The GGUF file against the checkpoint, and the measured loss against independent arithmetic."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen3ForCausalLM

from cluster.artifact import Artifact
from cluster.errors import UserError
from model import pretrained
from model.gguf_file import load_gguf
from stages.compress.gguf_file import write_gguf
from stages.compress.quantize import STAGE, Config
from stages.compress.quantize_run import WindowLosses, increase_percent, measure_windows
from stages.stage import Context, Metrics
from stages.text.token_shards import TokenShards, TokenWriter
from tests.serve.tiny_checkpoint import TEXTS, make_checkpoint, make_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("quantize") / "checkpoint")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    tokenizer = make_tokenizer(folder)
    writer = TokenWriter(folder / "heldout", vocabulary_size=384, end_of_text=0)
    for number in range(120):
        writer.add(f"d{number}", tokenizer.encode(TEXTS[number % 4] * (1 + number % 3)).ids)
    writer.close()
    return folder


@pytest.fixture
def quantize(
    checkpoint: Path, tokens: Path, context: Context, as_artifact: Callable[..., Artifact]
) -> Callable[..., Metrics]:
    def run(model: Path = checkpoint, **settings: object) -> Metrics:
        config = Config(model="m", tokens="t", **settings)  # type: ignore[arg-type]
        inputs = {
            "model": as_artifact(model, "checkpoint"),
            "tokens": as_artifact(tokens, "tokens"),
        }
        return STAGE.run(config, inputs, context)

    return run


def test_q8_0_halves_the_file_and_loses_little(
    quantize: Callable[..., Metrics], context: Context
) -> None:
    metrics = quantize(measured_rows=32, row_tokens=128)
    assert metrics["bytes_after"] < 0.45 * metrics["bytes_before"]
    assert metrics["increase_percent_low"] <= metrics["increase_percent"]
    assert metrics["increase_percent"] <= metrics["increase_percent_high"]
    assert abs(metrics["increase_percent"]) < 2
    assert metrics["greedy_agreement"] > 0.85
    assert json.loads((context.out / "quality.json").read_text()) == metrics
    assert AutoTokenizer.from_pretrained(context.out).eos_token == "<|endoftext|>"


def test_f16_agrees_with_float_everywhere(quantize: Callable[..., Metrics]) -> None:
    metrics = quantize(format="F16", measured_rows=32, row_tokens=128)
    assert metrics["greedy_agreement"] == 1.0
    assert abs(metrics["increase_percent"]) < 0.05


@pytest.mark.parametrize("tied", [True, False])
def test_weights_come_back_within_half_a_step(tmp_path: Path, tied: bool) -> None:
    folder = make_checkpoint(tmp_path / "model", seed=3, tied=tied)
    weights = load_file(folder / "model.safetensors")
    for storage in ("Q8_0", "F16"):
        file = tmp_path / f"{storage}.gguf"
        write_gguf(folder, file, storage, "tiny")  # type: ignore[arg-type]
        model = load_gguf(file)
        assert model.config.tie_word_embeddings is tied
        for name, value in model.state_dict().items():
            if name not in weights:
                continue
            before = weights[name].double()
            error = (value.double() - before).abs()
            if before.ndim == 1:
                assert error.max() == 0, "norms stay float32"
            elif storage == "Q8_0":
                step = before.reshape(-1, 32).abs().amax(1, keepdim=True) / 127
                # half a step, and the float16 rounding of the step itself (2**-11, 127 times)
                assert (error.reshape(-1, 32) <= step * (0.5 + 127 * 2**-11)).all()
            else:
                assert (error <= before.abs() * 2**-11 + 2**-25).all()


def test_tokenizer_metadata_is_what_the_engines_read(checkpoint: Path, tmp_path: Path) -> None:
    write_gguf(checkpoint, tmp_path / "m.gguf", "Q8_0", "tiny")
    reader = gguf.GGUFReader(str(tmp_path / "m.gguf"))

    def value(key: str) -> object:
        field = reader.get_field(key)
        assert field is not None, key
        return field.contents()

    assert value("tokenizer.ggml.model") == "gpt2"
    assert value("tokenizer.ggml.pre") == "qwen2"
    tokens, types = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    assert len(tokens) == len(types) == 384
    reference = AutoTokenizer.from_pretrained(checkpoint)
    for text, number in reference.get_vocab().items():
        assert tokens[number] == text
    special = {reference.convert_tokens_to_ids(token) for token in reference.all_special_tokens}
    assert special <= {n for n, kind in enumerate(types) if kind == gguf.TokenType.CONTROL}
    assert value("tokenizer.ggml.eos_token_id") == 2
    template = value("tokenizer.chat_template")
    assert isinstance(template, str)
    assert "generation %}" not in template
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    assert reference.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True
    ) == reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_openvinos_own_tokenizer_reads_it_too(checkpoint: Path, tmp_path: Path) -> None:
    """What Ollama and llama.cpp do with text, done by the third reader of such files."""
    import openvino_genai as genai

    write_gguf(checkpoint, tmp_path / "m.gguf", "Q8_0", "tiny")
    theirs = genai.Tokenizer(tmp_path / "m.gguf")
    reference = AutoTokenizer.from_pretrained(checkpoint)
    for text in [*TEXTS, "12345 67", " x\n\n y", "héllo 世界 🙂"]:
        ids = theirs.encode(text, add_special_tokens=False).input_ids.data[0].tolist()
        assert ids == reference.encode(text, add_special_tokens=False)
        assert theirs.decode(ids) == text


def test_perplexity_is_hugging_faces(checkpoint: Path, tokens: Path) -> None:
    shards = TokenShards(tokens / "heldout")
    config = Config(model="m", tokens="t", measured_rows=8, row_tokens=64, batch_rows=3)
    ours = measure_windows(pretrained.load(checkpoint), shards, config, seed=5)
    model = Qwen3ForCausalLM.from_pretrained(checkpoint).eval()
    batch = shards.batch(0, 8, 64, 5)
    total, count = 0.0, 0
    for ids, labels, documents in zip(
        batch.input_ids, batch.labels, batch.document_ids, strict=True
    ):
        for document in np.unique(documents):  # one document at a time: no mask to get wrong
            here = documents == document
            with torch.no_grad():
                logits = model(torch.from_numpy(ids[here])[None]).logits[0].double()
            wanted = labels[here]
            known = wanted != -100
            chosen = torch.log_softmax(logits, -1)[np.flatnonzero(known), wanted[known]]
            total -= float(chosen.sum())
            count += int(known.sum())
    assert ours.tokens.sum() == count
    assert ours.perplexity == pytest.approx(math.exp(total / count), rel=1e-5)


def test_the_increase_is_paired() -> None:
    """Windows differ much, the two models little: the interval must be narrow around 1 %."""
    random = np.random.default_rng(0)
    tokens = np.full(200, 100.0)
    nats = 100 * random.uniform(1, 5, 200)
    change = 100 * (math.log(1.01) + random.normal(0, 0.001, 200))
    figures = increase_percent(
        WindowLosses(nats, tokens), WindowLosses(nats + change, tokens), seed=1
    )
    assert figures["increase_percent"] == pytest.approx(1.0, abs=0.03)
    assert figures["increase_percent_high"] - figures["increase_percent_low"] < 0.1
    assert figures["increase_percent_low"] < 1.0 < figures["increase_percent_high"]


def test_what_cannot_be_quantized_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    odd = tmp_path / "reward"
    odd.mkdir()
    (odd / "config.json").write_text(
        json.dumps(config | {"architectures": ["Qwen3ForSequenceClassification"]})
    )
    with pytest.raises(UserError, match=r"Qwen3ForSequenceClassification.*Qwen3ForCausalLM only"):
        write_gguf(odd, tmp_path / "a.gguf", "F16", "x")
    (odd / "config.json").write_text(json.dumps(config | {"use_sliding_window": True}))
    with pytest.raises(UserError, match="sliding window"):
        write_gguf(odd, tmp_path / "odd.gguf", "F16", "odd")
    for named in ("rope_scaling", "rope_parameters"):
        (odd / "config.json").write_text(json.dumps(config | {named: {"rope_type": "yarn"}}))
        with pytest.raises(UserError, match="scaled by"):
            write_gguf(odd, tmp_path / "b.gguf", "F16", "x")
