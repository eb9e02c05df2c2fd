"""Language identification on single sentences of 75 languages: ours against py3langid as it comes.

The sentences are lingua's test data (../shared/data/lid); the figure is the share told rightly, by
language and in all. Ours adds scripts, regional labels and a second model, CLD2.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from stages.text.language import canonical, identify
from stages.text.language_models import Py3LangId
from tests.real_text import SHARED

FOLDER = SHARED / "lid" / "sentences"


def accuracy(
    every: int = 1, tell: Callable[[str], str] | None = None
) -> tuple[float, dict[str, float]]:
    """Share of sentences told rightly, in all and by language; takes each `every`-th sentence."""
    tell = tell or (lambda sentence: canonical(identify(sentence, ())))
    right = asked = 0
    by_language = {}
    for path in sorted(FOLDER.glob("*.txt")):
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
        sentences = [line for line in lines if line][::every]
        found = sum(tell(sentence) == path.stem for sentence in sentences)
        by_language[path.stem] = found / len(sentences)
        right, asked = right + found, asked + len(sentences)
    return right / asked, by_language


def main() -> None:
    """Print both accuracies, and the languages under 95 %."""
    if not FOLDER.exists():
        print(f"language: skipped, no sentences at {FOLDER}")
        return
    ours, by_language = accuracy()
    model = Py3LangId()
    peer, _ = accuracy(tell=lambda sentence: canonical(model.rank(sentence)[0][0]))
    weak = sorted((share, code) for code, share in by_language.items() if share < 0.95)
    print(f"{len(by_language)} languages; under 95 %:", *(f"{c} {s:.0%}" for s, c in weak))
    print(
        json.dumps(
            {
                "bench": "language",
                "ours": round(ours, 4),
                "peer": round(peer, 4),
                "unit": "share of sentences told rightly",
                "ratio": round(ours / peer, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
