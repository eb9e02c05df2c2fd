"""Both engines against Hugging Face, and what the protocol promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Qwen3ForCausalLM

from serve.engine import Delta, Engine, EngineError, EngineLoop, Request, Stats
from serve.openvino_engine import OpenVINOEngine
from serve.torch_engine import TorchEngine, sample

PROMPTS = [
    (290, 300, 279, 224, 20, 21, 285),
    (45, 120, 8),
    (77,),
    tuple(range(100, 170)),
    (300, 12, 13, 14, 15, 16, 17, 18, 19),
]
MakeEngine = Callable[..., Engine]


@pytest.fixture(params=["openvino", "torch"])
def make_engine(request: pytest.FixtureRequest, checkpoint: Path, gguf_f16: Path) -> MakeEngine:
    if request.param == "openvino":
        return lambda **options: OpenVINOEngine(gguf_f16, **options)
    return lambda **options: TorchEngine(checkpoint, **options)


def ask(name: str, prompt: tuple[int, ...], max_tokens: int = 24, **options: object) -> Request:
    settings = {"temperature": 0.0} | options
    return Request(name, prompt, max_tokens, **settings)  # type: ignore[arg-type]


def drain(engine: Engine, into: dict[str, list[Delta]] | None = None) -> dict[str, list[Delta]]:
    into = {} if into is None else into
    for _ in range(2000):
        if not engine.has_work():
            return into
        for delta in engine.step():
            into.setdefault(delta.request_id, []).append(delta)
    raise AssertionError("the engine did not finish")


def tokens(deltas: list[Delta]) -> list[int]:
    return [number for delta in deltas for number in delta.token_ids]


def logprobs(deltas: list[Delta]) -> list[float]:
    return [value for delta in deltas for value in delta.logprobs]


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> dict[tuple[int, ...], tuple[list[int], list[float]]]:
    """Hugging Face's greedy tokens and their log-probabilities, one prompt at a time."""
    model = Qwen3ForCausalLM.from_pretrained(checkpoint).eval()
    answers = {}
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False,
            eos_token_id=None, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        chosen = out.sequences[0, len(prompt) :].tolist()
        scores = [torch.log_softmax(s[0], -1)[t].item() for s, t in zip(out.scores, chosen)]  # noqa: B905
        answers[prompt] = (chosen, scores)
    return answers


def test_greedy_tokens_are_hugging_faces(make_engine: MakeEngine, reference: dict) -> None:
    engine = make_engine(max_sequences=2)  # fewer places than prompts: some wait, then join
    for number, prompt in enumerate(PROMPTS):
        engine.add(ask(f"r{number}", prompt))
    answers = drain(engine)
    for number, prompt in enumerate(PROMPTS):
        expected, scores = reference[prompt]
        assert tokens(answers[f"r{number}"]) == expected
        assert logprobs(answers[f"r{number}"]) == pytest.approx(scores, abs=0.01)
        assert [delta.finish_reason for delta in answers[f"r{number}"]][-1] == "length"
        assert all(delta.finish_reason is None for delta in answers[f"r{number}"][:-1])


def test_requests_join_and_leave_mid_flight(make_engine: MakeEngine, reference: dict) -> None:
    engine = make_engine(max_sequences=4)
    engine.add(ask("stays", PROMPTS[0]))
    engine.add(ask("goes", PROMPTS[3], max_tokens=150))
    early: dict[str, list[Delta]] = {}
    for _ in range(5):
        for delta in engine.step():
            early.setdefault(delta.request_id, []).append(delta)
    engine.abort("goes")
    engine.abort("never came")
    engine.add(ask("joins", PROMPTS[4]))
    answers = drain(engine, early)
    assert tokens(answers["stays"]) == reference[PROMPTS[0]][0]
    assert tokens(answers["joins"]) == reference[PROMPTS[4]][0]
    assert len(tokens(answers["goes"])) <= 6
    assert engine.stats().requests == 0


def test_a_stop_token_ends_the_answer_and_is_its_last(
    make_engine: MakeEngine, reference: dict
) -> None:
    expected = reference[PROMPTS[0]][0]
    stop = expected[5]
    engine = make_engine()
    engine.add(ask("r", PROMPTS[0], stop_ids=frozenset({stop})))
    deltas = drain(engine)["r"]
    assert tokens(deltas) == expected[: expected.index(stop) + 1]
    assert deltas[-1].finish_reason == "stop"


def test_a_seed_repeats_whatever_else_runs(make_engine: MakeEngine) -> None:
    engine = make_engine(max_sequences=8)
    engine.add(ask("alone", PROMPTS[0], temperature=1.0, seed=5))
    alone = tokens(drain(engine)["alone"])
    engine.add(ask("other", PROMPTS[1], temperature=1.0, seed=9))
    engine.add(ask("again", PROMPTS[0], temperature=1.0, seed=5))
    engine.add(ask("free", PROMPTS[0], temperature=1.0))
    engine.add(ask("free too", PROMPTS[0], temperature=1.0))
    answers = {name: tokens(deltas) for name, deltas in drain(engine).items()}
    assert answers["again"] == alone
    assert answers["free"] != answers["free too"], "without a seed, chance"


def test_sampling_follows_the_models_distribution(
    make_engine: MakeEngine, checkpoint: Path
) -> None:
    """First tokens of 1500 requests at temperature 0.7 against exact probabilities (chi-square)."""
    model = Qwen3ForCausalLM.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        logits = model(torch.tensor([PROMPTS[1]])).logits[0, -1].double()
    expected = torch.softmax(logits / 0.7, -1)
    engine = make_engine(max_sequences=64)
    draws = 1500
    for seed in range(draws):
        engine.add(ask(f"r{seed}", PROMPTS[1], max_tokens=1, temperature=0.7, seed=seed))
    counts = torch.zeros(len(expected), dtype=torch.double)
    for deltas in drain(engine).values():
        counts[tokens(deltas)[0]] += 1
    common = expected * draws >= 5
    observed = torch.cat([counts[common], counts[~common].sum()[None]])
    wanted = torch.cat([expected[common], expected[~common].sum()[None]]) * draws
    chi_square = float(((observed - wanted) ** 2 / wanted).sum())
    freedom = len(wanted) - 1
    assert freedom > 20
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


def test_top_p_keeps_the_smallest_sufficient_set() -> None:
    logits = torch.log(torch.tensor([0.05, 0.4, 0.25, 0.3]))
    random = torch.Generator().manual_seed(0)
    seen = {sample(logits, 1.0, 0.69, random) for _ in range(200)}
    assert seen == {1, 3}
    assert {sample(logits, 1.0, 0.1, random) for _ in range(50)} == {1}
    assert {sample(logits, 1.0, 1.0, random) for _ in range(400)} == {0, 1, 2, 3}


def test_top_p_small_is_greedy(make_engine: MakeEngine, reference: dict) -> None:
    engine = make_engine()
    engine.add(ask("r", PROMPTS[0], temperature=1.0, top_p=1e-6, seed=1))
    assert tokens(drain(engine)["r"]) == reference[PROMPTS[0]][0]


def test_an_id_in_use_is_refused(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.add(ask("r", PROMPTS[0]))
    with pytest.raises(ValueError, match="in use"):
        engine.add(ask("r", PROMPTS[1]))


def test_streams_of_a_loop_run_together_and_leaving_aborts(
    make_engine: MakeEngine, reference: dict
) -> None:
    async def story() -> None:
        loop = EngineLoop(make_engine(max_sequences=8))

        async def whole(number: int) -> list[int]:
            request = ask(f"r{number}", PROMPTS[number])
            return [i async for delta in loop.stream(request) for i in delta.token_ids]

        async def leaving() -> None:
            stream = loop.stream(ask("long", PROMPTS[3], max_tokens=180))
            async for _ in stream:
                break
            await stream.aclose()

        answers, *_ = await asyncio.gather(
            asyncio.gather(*(whole(number) for number in range(len(PROMPTS)))), leaving()
        )
        assert list(answers) == [reference[prompt][0] for prompt in PROMPTS]
        assert loop.running == 0
        for _ in range(200):
            if loop.engine.stats().requests == 0:
                break
            await asyncio.sleep(0.01)
        assert loop.engine.stats().requests == 0
        made = loop.engine.stats().generated_tokens
        assert made < 24 * len(PROMPTS) + 180, "the aborted request did not run to its end"
        loop.close()

    asyncio.run(story())


class BreaksEngine:
    """An engine that fails in its second step."""

    name = "breaks"
    context_tokens = 8

    def __init__(self) -> None:
        self.held: list[str] = []
        self.steps = 0

    def add(self, request: Request) -> None:
        self.held.append(request.id)

    def step(self) -> list[Delta]:
        self.steps += 1
        if self.steps == 2:
            raise RuntimeError("out of cache")
        return [Delta(name, (1,), (0.0,)) for name in self.held]

    def abort(self, request_id: str) -> None:
        self.held.remove(request_id)

    def has_work(self) -> bool:
        return bool(self.held)

    def stats(self) -> Stats:
        return Stats(len(self.held), 0.0, self.steps)


def test_a_failed_engine_tells_every_stream_and_takes_no_more() -> None:
    async def story() -> None:
        loop = EngineLoop(BreaksEngine())
        seen = []
        with pytest.raises(EngineError, match="out of cache"):
            async for delta in loop.stream(ask("r", (1,))):
                seen.append(delta)
        assert len(seen) == 1
        assert not loop.healthy
        with pytest.raises(EngineError, match="down"):
            async for _ in loop.stream(ask("next", (1,))):
                pass

    asyncio.run(story())
