"""A fastText model as the teller of languages: GlotLID, lid.176, or one of your own."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

from datatrove.utils._import_utils import ASSETS_PATH

from cluster.errors import UserError

_PREFIX = "__label__"
_LABELS_RANKED = 20


@lru_cache(maxsize=1)
def two_letters() -> dict[str, str]:
    """ISO 639-3 -> ISO 639-1, for the languages that have such a code; from datatrove's table."""
    with (Path(ASSETS_PATH) / "tokenizer_assignment.csv").open(encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {row["code_3"]: row["code_1"] for row in rows if row["code_1"]}


class FastTextModel:
    """Ranks languages by a fastText classifier whose labels are codes, with a script or without.

    `__label__en`, `__label__eng` and `__label__eng_Latn` all become `en`.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(
                f"language_model {path}: no such file; expected a fastText model (.bin or .ftz)"
            )
        try:
            import fasttext
        except ImportError as error:
            raise UserError(
                f"language_model {path} is a fastText model, and fasttext-predict is not installed:"
                " pip install 'raylm[fasttext]', or leave language_model out for the built-in model"
            ) from error
        try:
            self._model = fasttext.load_model(str(path))
        except ValueError as error:
            raise UserError(
                f"language_model {path} is no fastText model ({error}); expected a .bin or .ftz"
                " file such as GlotLID's model.bin"
            ) from error
        self.labels: frozenset[str] | None = None  # the library does not list them

    @staticmethod
    def _code(label: str) -> str:
        base = label.removeprefix(_PREFIX).split("_")[0]
        return two_letters().get(base, base)

    def rank(self, text: str) -> list[tuple[str, float]]:
        """The likeliest labels as codes, with their probabilities."""
        line = " ".join(text.encode("utf-8", "replace").decode().split())
        labels, probabilities = self._model.predict(line, k=_LABELS_RANKED)
        return [
            (self._code(label), float(probability))
            for label, probability in zip(labels, probabilities, strict=True)
        ]
