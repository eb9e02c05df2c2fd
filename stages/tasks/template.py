"""Templates that read both ways: filled to make text, matched to find what a text was made from.

`{name}` is a slot; `[a|b|c]` is a choice (it may be nested, and a part may be empty).
"""

from __future__ import annotations

import re
from functools import cache
from random import Random

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def expand(random: Random, template: str, **slots: object) -> str:
    """One text of `template`: choices drawn innermost first, then slots filled."""
    while (match := _CHOICE.search(template)) is not None:
        chosen = random.choice(match.group(1).split("|"))
        template = template[: match.start()] + chosen + template[match.end() :]
    return _SLOT.sub(lambda slot: str(slots[slot.group(1)]), template)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    seen: set[str] = set()
    parts = []
    for index, part in enumerate(_SLOT.split(template)):
        if index % 2 == 0:
            parts.append(re.escape(part))
        elif part in seen:
            parts.append(f"(?P={part})")
        else:
            seen.add(part)
            parts.append(f"(?P<{part}>.+?)")
    return re.compile("".join(parts))


def match(template: str, text: str) -> dict[str, str] | None:
    """The slots that make `text` from `template` (one without choices), or None."""
    found = _pattern(template).fullmatch(text)
    return found.groupdict() if found else None
