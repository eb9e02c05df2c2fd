"""Near duplicates: the LSH curve, verification, components."""

from __future__ import annotations

import random

import numpy as np
import pytest
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.text import TextNormConfig

from stages.text import dedup


def words(count: int, seed: int) -> list[str]:
    source = random.Random(seed)
    return ["".join(source.choices("abcdefghijklmnop", k=6)) for _ in range(count)]


def edited(base: list[str], share: float, seed: int) -> list[str]:
    source, out = random.Random(seed), list(base)
    for at in source.sample(range(len(out)), round(share * len(out))):
        out[at] = "".join(source.choices("qrstuvwxyz", k=6))
    return out


def test_jaccard_equals_that_of_sets() -> None:
    a, b = (
        dedup.shingles("one two three four five six seven", "en"),
        dedup.shingles("one two three four five six eight", "en"),
    )
    assert dedup.jaccard(a, b) == pytest.approx(2 / 4)
    assert dedup.jaccard(a, a) == 1


def test_exact_key_ignores_case_space_and_punctuation_but_not_numbers() -> None:
    assert dedup.exact_key("Hello,  World!\n") == dedup.exact_key("hello world")
    assert dedup.exact_key("3 apples") != dedup.exact_key("4 apples")


@pytest.mark.parametrize("share", [0.01, 0.02, 0.03])
def test_candidates_of_the_bands_are_on_the_lsh_curve_and_bands_across_add_to_them(
    share: float,
) -> None:
    """P(candidate) = 1 - (1 - s^8)^14 for the mean similarity s of the planted pairs."""
    straight, found, similarity, pairs = 0, 0, [], 160
    for seed in range(pairs):
        base = words(120, seed)
        a = dedup.shingles(" ".join(base), "en")
        b = dedup.shingles(" ".join(edited(base, share, seed + 10_000)), "en")
        similarity.append(dedup.jaccard(a, b))
        alike = [x == y for x, y in zip(dedup.band_keys(a), dedup.band_keys(b), strict=True)]
        straight += any(alike[: dedup.BANDS])
        found += any(alike)
    expected = np.mean([1 - (1 - s**8) ** 14 for s in similarity])
    deviation = np.sqrt(expected * (1 - expected) / pairs)
    assert straight / pairs == pytest.approx(expected, abs=4 * deviation + 0.01)
    assert found > straight or straight == pairs


def test_a_false_candidate_makes_no_edge() -> None:
    sets = {n: dedup.shingles(" ".join(words(80, n)), "en") for n in range(40)}
    assert dedup.verified_edges(list(sets), sets.__getitem__, 0.8) == []


@pytest.mark.parametrize("count", [5, 60])
def test_all_documents_of_a_bucket_that_are_alike_are_joined(count: int) -> None:
    base = words(200, 1)
    texts = [" ".join(edited(base, 0.005, n)) for n in range(count)]
    sets = {n: dedup.shingles(text, "en") for n, text in enumerate(texts)}
    edges = dedup.verified_edges(list(sets), sets.__getitem__, 0.8)
    kept_for = dedup.survivors(edges, lambda a, b: False)
    assert kept_for == dict.fromkeys(range(1, count), 0)


def test_buckets_group_equal_keys() -> None:
    keys = np.asarray([5, 7, 5, 9, 7, 5], dtype=np.uint64)
    assert [b.tolist() for b in dedup.buckets(keys)] == [[0, 2, 5], [1, 4]]
    assert list(dedup.buckets(np.empty(0, dtype=np.uint64))) == []


def test_the_first_stays_and_a_chain_is_not_swallowed() -> None:
    chain = [(n, n + 1) for n in range(9)]  # each like the next, none like the one after that
    for seed in range(5):
        shuffled = random.Random(seed).sample(chain, len(chain))
        kept_for = dedup.survivors(shuffled, lambda a, b: False)
        assert kept_for == {n: n - 1 for n in (1, 3, 5, 7, 9)}
    # 3 was compared with 1 only, which went for 0: what 1 went for is looked at too.
    assert dedup.survivors([(0, 1), (1, 3)], lambda a, b: (a, b) == (0, 3)) == {1: 0, 3: 0}
    assert dedup.survivors([(0, 1), (1, 2), (0, 3)], lambda a, b: True, settled=2) == {2: 1, 3: 0}


def test_shingles_and_signatures_are_datatroves() -> None:
    signer = MinhashDedupSignature(
        ".", MinhashConfig(norm_config=TextNormConfig(norm_numbers=False)), "eng"
    )
    text = "The café on the 3rd street — it’s OPEN; come in, and bring 12 friends! " * 3
    for sample in (text, "naïve " + text, " ".join(words(900, 3))):
        stock = signer.get_shingles(sample)
        ours = dedup.shingles(sample, "en")
        assert ours.tolist() == sorted(set(stock.ravel().tolist()))
        assert dedup.signature(ours).tolist() == signer.get_signature(stock)


def test_chinese_near_duplicates_share_shingles() -> None:
    text = "春天来了，公园里的花都开了，孩子们在草地上跑来跑去，老人们坐在长椅上晒太阳。" * 2
    other = text.replace("草地", "广场", 1)
    assert dedup.jaccard(dedup.shingles(text, "zh"), dedup.shingles(other, "zh")) > 0.5
    # five characters each, spaces and punctuation left out, so one change costs five shingles
    plain = "春天来了公园里的花都开了"
    assert len(dedup.shingles(plain, "zh")) == len(plain) - 4
    assert (
        dedup.jaccard(
            dedup.shingles(plain, "zh"), dedup.shingles("春天来了，公园 里的花都开了。", "zh")
        )
        == 1
    )
    assert len(dedup.shingles("花开了", "zh")) == 1
