"""Examples are checked line by line, and a bad line is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.errors import UserError
from stages.tune.examples import read_conversations, read_preferences
from tests.stages.small import sums


def _write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_good_rows_are_read_with_their_known_columns(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.jsonl", *(json.dumps(row) for row in sums(5, 0)))
    assert [list(row) for row in read_conversations(path, limit=2)] == [["messages"]] * 2
    assert list(read_preferences(path)[4]) == ["prompt", "chosen", "rejected"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is not JSON"),
        ('{"messages": []}', "line 2: expected messages"),
        ('{"messages": [{"role": "user", "content": "hi"}]}', "end with the assistant's"),
        ("[1]", "line 2: expected messages"),
    ],
)
def test_a_bad_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "x.jsonl", json.dumps(sums(1, 0)[0]), line)
    with pytest.raises(UserError, match=said):
        read_conversations(path)


def test_a_missing_or_empty_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_preferences(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="is empty"):
        read_preferences(_write(tmp_path / "empty.jsonl"))
