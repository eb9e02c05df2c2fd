"""The command as a user meets it: another process, its output and its exit code."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stages.test_importing import LLAMA, folder
from tests.stages.test_recipe import GOOD, changed, write_recipe

ROOT = Path(__file__).parent.parent.parent


def raylm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command (with the toy stages known) from another folder than the checkout's."""
    return subprocess.run(
        [sys.executable, "-m", "tests.toy_stages", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
    )  # fmt: skip


@pytest.fixture
def toy(tmp_path: Path) -> str:
    return write_recipe(tmp_path, GOOD)


def test_a_run_shows_a_table_and_a_second_says_nothing_was_to_be_done(
    tmp_path: Path, toy: str
) -> None:
    first = raylm(tmp_path, "run", toy)
    assert first.returncode == 0, first.stderr
    for word in ("first", "count", "steps 2", "total", "4 stages", "cost USD", "energy"):
        assert word in first.stdout
    assert "Nothing was to be done" not in first.stdout
    second = raylm(tmp_path, "run", toy)
    assert second.returncode == 0 and "Nothing was to be done" in second.stdout
    assert (tmp_path / "runs" / "toy" / "index.json").is_file()


def test_plan_show_and_gc(tmp_path: Path, toy: str) -> None:
    before = raylm(tmp_path, "plan", toy)
    assert before.returncode == 0 and "4 of 4 stages to make" in before.stdout
    assert not (tmp_path / "runs" / "artifacts").exists()
    raylm(tmp_path, "run", toy)
    assert "Everything is made already" in raylm(tmp_path, "plan", toy).stdout
    shown = raylm(tmp_path, "show", "toy/base").stdout
    assert "count.txt" in shown and "corpus: corpus-" in shown and "pieces: examples-" in shown
    raylm(tmp_path, "run", toy, "--set", "stages.first.text=z")
    assert "would remove 4 things" in raylm(tmp_path, "gc", "--dry-run").stdout
    assert "removed 4 things" in raylm(tmp_path, "gc").stdout
    assert "removed 0 things" in raylm(tmp_path, "gc").stdout


MISTAKES = [
    (["run", "tniy"], "there is no recipe 'tniy'"),
    (["run", "toy.yaml", "--set", "stages.base.steps=many"], "stages.base.steps: found 'many'"),
    (["run", "toy.yaml", "--until", "bas"], "did you mean 'base'"),
    (["run", "toy.yaml", "--until", ""], "no stage is called ''"),
    (["run", "toy.yaml", "--until", "all", "--only", "base"], "expected one of the two"),
    (["run", "toy.yaml", "--set", "stages.first.fail=user"], "stage 'first': found a bad text"),
    (["run", "cycle.yaml"], "circle: one -> two -> one"),
    (["run", "toy.yaml", "--set", "store=nowhere://x"], "nowhere:// cannot be used"),
    (["run", "toy.yaml", "--set", "store=toy.yaml"], "toy.yaml cannot be written: File exists"),
    (["run", "toy.yaml", "--set", "memory_gib=99999"], "needs 99999 GiB of memory, found"),
    (["run", "toy.yaml", "--address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
    (["run", "torn.yaml"], "torn.yaml is not valid YAML: line 2, column 1: while parsing"),
    (["serve", "toy.yaml", "--port", "99999"], "less than or equal to 65535"),
    (["show", "nothing"], "there is no artifact 'nothing'"),
    (["show", ""], "there is no artifact ''"),
    (["show", "x" * 5000], "there is no artifact"),
    (["show", "a", "--store", ""], "found an empty store"),
    (["report", "toy.yaml"], "has no report"),
    (["serve", "toy.yaml"], "has no 'serve' key"),
    (["import", "nothing", "--name", "x"], "there is nothing at nothing"),
    (["frobnicate"], "No such command"),
]


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES, ids=[s for _, s in MISTAKES])
def test_a_users_mistake_is_a_sentence_and_exit_code_2(
    tmp_path: Path, toy: str, arguments: list[str], sentence: str
) -> None:
    cycle = changed(
        one={"stage": "count", "corpus": "all", "model": "two"},
        two={"stage": "count", "corpus": "all", "model": "one"},
    )
    write_recipe(tmp_path, cycle, "cycle.yaml")
    (tmp_path / "torn.yaml").write_text("name: [torn\n")
    done = raylm(tmp_path, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_failure_is_exit_code_1_and_debug_shows_the_traceback(tmp_path: Path, toy: str) -> None:
    failing = ["run", toy, "--set", "stages.first.fail=bug"]
    done = raylm(tmp_path, *failing)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "stage 'first' failed: ZeroDivisionError: nothing to divide by" in done.stderr
    assert "logs/first.log" in done.stderr
    assert "Traceback" in raylm(tmp_path, *failing, "--debug").stderr


def test_a_store_in_use_is_said(tmp_path: Path, toy: str) -> None:
    slow = [sys.executable, "-m", "tests.toy_stages", "run", toy]
    with subprocess.Popen(
        [*slow, "--set", "stages.first.delay_s=30"], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as holder:  # fmt: skip
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob("runs/work/*/out-*/part.txt")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        done = raylm(tmp_path, "run", toy)
        assert done.returncode == 2
        assert f"written by raylm run toy (process {holder.pid}" in done.stderr
        holder.terminate()
        assert holder.wait(timeout=20) == 130, "a polite stop is not a failure"
        assert holder.stderr is not None and "the same command goes on" in holder.stderr.read()


def test_imports_become_parents(tmp_path: Path) -> None:
    lines = [{"messages": [{"role": "user", "content": "hi"}]}]
    source = tmp_path / "talk.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = raylm(tmp_path, "import", "talk.jsonl", "--name", "talk")
    assert done.returncode == 0 and "talk is examples-" in done.stdout
    assert "conversations.jsonl" in raylm(tmp_path, "show", "talk").stdout
    source.write_text("not json\n")
    done = raylm(tmp_path, "import", "talk.jsonl", "--name", "talk")
    assert done.returncode == 2 and "line 1: not a JSON object" in done.stderr
    for text, sentence in (
        ("", "talk.jsonl is empty"),
        ("[1]\n", "line 1: found list, expected an object with 'messages'"),
        ('{"a": 1}\n', "line 1: found the keys a, expected an object with 'messages'"),
        ('{"messages": []}\n{"chosen": 1}\n', "line 2: found the keys chosen, expected"),
        ("\udcff\n", "line 1: not a JSON object"),
    ):
        source.write_text(text, errors="surrogateescape")
        done = raylm(tmp_path, "import", "talk.jsonl", "--name", "talk")
        assert done.returncode == 2 and sentence in done.stderr
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    done = raylm(tmp_path, "import", "model", "--name", "m")
    assert done.returncode == 2 and "pickled weights" in done.stderr


def _cut_weights(artifact: Path) -> None:
    (artifact / "model.safetensors").write_bytes(b"")


def _spoil_config(artifact: Path) -> None:
    (artifact / "config.json").write_text("{")


def _spoil_manifest(artifact: Path) -> None:
    (artifact / "manifest.json").write_text("{")


@pytest.mark.parametrize("damage", [_cut_weights, _spoil_config, _spoil_manifest, shutil.rmtree])
def test_an_import_that_is_damaged_or_lost_is_imported_again_as_told(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """No stage makes it: the command that the sentence ends with mends it."""
    folder(tmp_path / "a llama", LLAMA)
    toy = write_recipe(tmp_path, changed(base={**GOOD["stages"]["base"], "model": "same"}))
    assert raylm(tmp_path, "import", "a llama", "--name", "same").returncode == 0
    (artifact,) = (tmp_path / "runs" / "artifacts").iterdir()
    damage(artifact)
    done = raylm(tmp_path, "run", toy)
    assert done.returncode == 2 and "remove" not in done.stderr and "anew" not in done.stderr
    _, told, command = done.stderr.strip().partition("import it again: raylm ")
    assert told, done.stderr
    if damage is not _cut_weights:  # which is found when it is used; what describes it, at once
        assert raylm(tmp_path, "plan", toy).stderr == done.stderr
        assert not (tmp_path / "runs" / "toy").exists()
    assert raylm(tmp_path, *shlex.split(command)).returncode == 0
    assert raylm(tmp_path, "run", toy).returncode == 0


def test_a_damaged_list_of_imports_is_said(tmp_path: Path, toy: str) -> None:
    (tmp_path / "runs" / "imports").mkdir(parents=True)
    (tmp_path / "runs" / "imports" / "index.json").write_text("[]")
    for command in (["run", toy], ["plan", toy], ["import", "toy.yaml", "--name", "x"]):
        done = raylm(tmp_path, *command)
        assert done.returncode == 2 and "next run" not in done.stderr
        if command[0] != "import":
            assert "remove it, and import again what recipes name: raylm import" in done.stderr


def test_what_to_do_next_is_a_command_that_works(tmp_path: Path, toy: str) -> None:
    settings = ["--set", "store=elsewhere", "--set", "stages.first.text='[/b]'"]
    done = raylm(tmp_path, "run", "toy.yaml", *settings, "--until", "all")
    again = f"raylm run toy.yaml {shlex.join(settings)}"
    assert f"next:      {again}   makes base too" in " ".join(done.stdout.split("\n"))
    done = raylm(tmp_path, *shlex.split(again)[1:])
    assert "look:      raylm show toy/base --store elsewhere" in done.stdout
    shown = raylm(tmp_path, "show", "first", "--store", "elsewhere")
    assert shown.returncode == 0 and "[/b]" in shown.stdout


def test_doctor_looks_at_the_machine(tmp_path: Path) -> None:
    done = raylm(tmp_path, "doctor")
    assert done.returncode == 0, done.stdout
    for word in ("python", "compiler", "shared memory", "cores", "disk", "Ready"):
        assert word in done.stdout
    (tmp_path / "file").touch()
    done = raylm(tmp_path, "doctor", "--store", "file")
    assert done.returncode == 1 and "file is a file  -> choose a folder" in done.stdout


def test_help_answers_at_once() -> None:
    command = shutil.which("raylm", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    for name in ("run", "plan", "submit", "show", "report", "serve", "chat", "import", "gc"):
        assert name in done.stdout
    listed = "import sys, stages.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", listed], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"ray", "torch", "transformers", "pydantic"} & set(loaded)
