"""A keyed permutation of range(n), one element at a time, without storing it.

A balanced Feistel network permutes the smallest power of four that holds n; values outside range(n)
are sent through again until they fall inside (cycle walking: Black and Rogaway, "Ciphers with
Arbitrary Finite Domains", 2002). Round keys come from blake2b, so the order is the same on every
machine.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

_ROUNDS = 6
_MIX = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the multiplier of Fibonacci hashing
_MASK64 = (1 << 64) - 1


@lru_cache(maxsize=256)
def _round_keys(key: tuple[int, ...]) -> tuple[int, ...]:
    text = ",".join(str(part) for part in key).encode()
    return tuple(
        int.from_bytes(hashlib.blake2b(text, digest_size=8, salt=bytes([r])).digest(), "little")
        for r in range(_ROUNDS)
    )


def permute(index: int, size: int, key: tuple[int, ...]) -> int:
    """The image of `index` under the permutation of range(size) that `key` names."""
    if not 0 <= index < size:
        raise ValueError(f"index {index} is outside range({size})")
    if size < 2:
        return index
    half = (size.bit_length() + 1) // 2
    mask = (1 << half) - 1
    keys = _round_keys(key)
    while True:
        left, right = index >> half, index & mask
        for round_key in keys:
            mixed = ((right ^ round_key) * _MIX) & _MASK64
            mixed ^= mixed >> 29
            mixed = (mixed * _MIX) & _MASK64
            left, right = right, left ^ (mixed >> 40 & mask)
        index = left << half | right
        if index < size:
            return index
