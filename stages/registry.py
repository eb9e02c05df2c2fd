"""Which stages there are: the name a recipe uses -> the module attribute that defines it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import cast

from cluster.errors import UserError
from stages.stage import Stage

STAGES = {
    "corpus": "stages.corpus:STAGE",
    "tokenizer": "stages.tokenizer:STAGE",
    "tokens": "stages.tokens:STAGE",
    "examples": "stages.examples:STAGE",
    "pretrain": "stages.pretrain:STAGE",
    "sft": "stages.align.sft:STAGE",
    "reward": "stages.align.reward:STAGE",
    "dpo": "stages.align.dpo:STAGE",
    "ppo": "stages.align.ppo:STAGE",
    "rlvr": "stages.rlvr:STAGE",
    "distill": "stages.compress.distill:STAGE",
    "quantize": "stages.compress.quantize:STAGE",
    "evaluate": "stages.evaluate:STAGE",
    "report": "stages.report:STAGE",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a sentence: the known name that was probably meant, else all of them."""
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def find_stage(name: str) -> Stage:
    """The stage of that name; an unknown one is a UserError naming the nearest."""
    if name not in STAGES:
        raise UserError(f"there is no stage {name!r}{nearest(name, STAGES)}")
    module, attribute = STAGES[name].split(":")
    return cast(Stage, getattr(importlib.import_module(module), attribute))
