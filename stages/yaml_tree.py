"""YAML as plain values; a key that stands twice, which YAML's libraries let pass, is refused, and
20e9 is a number, as YAML 1.2 has it, and not a text, as PyYAML does.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import yaml
from yaml.error import MarkedYAMLError

MERGE = "tag:yaml.org,2002:merge"


class YamlMistake(Exception):
    """The text is not YAML as we read it; the message says where and why."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which takes the last of two equal keys in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        counts = Counter((key.tag, key.value) for key in keys if key.tag != MERGE)
        for key in keys:
            if counts[key.tag, key.value] > 1:
                problem = f"the key {key.value!r} stands twice in one mapping"
                raise MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    [*"-+0123456789"],
)


def parse(text: str) -> Any:
    """The value of a YAML text; a YamlMistake where it has none."""
    try:
        return yaml.load(text, _Loader)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        said = [part for part in (error.context, error.problem) if part]
        raise YamlMistake(place + ", ".join(said)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise YamlMistake(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise YamlMistake("values lie too deep inside each other") from error
