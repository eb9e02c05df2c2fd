"""Which stages there are: the name a recipe uses -> the module attribute that defines it."""

from __future__ import annotations

import difflib
import importlib
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


def find_stage(name: str) -> Stage:
    """The stage of that name; an unknown one is a UserError naming the nearest."""
    if name not in STAGES:
        near = difflib.get_close_matches(name, STAGES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(STAGES)}"
        raise UserError(f"there is no stage {name!r}{hint}")
    module, attribute = STAGES[name].split(":")
    return cast(Stage, getattr(importlib.import_module(module), attribute))
