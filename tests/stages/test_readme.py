"""What README tells a user to write and to type is accepted as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from cluster.meter import Pricing
from stages.cli import app
from stages.hardware import Hardware
from stages.recipe import load_recipe
from stages.yaml_tree import parse

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def blocks() -> list[str]:
    """The indented blocks of README, without the indentation."""
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", README, re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip() for block in found]


def recipe(block: str) -> str:
    """The block's YAML, which commands may follow."""
    return block.partition("\n\n")[0] + "\n"


RECIPES = [recipe(block) for block in blocks() if block.startswith("name: ")]
STAGES = [block for block in blocks() if block.startswith("base:")]
COMMANDS = [line for block in blocks() for line in block.splitlines() if line[:6] == "raylm "]


@pytest.mark.parametrize("text", RECIPES, ids=lambda text: text.splitlines()[0])
def test_recipes(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "mine.yaml")).steps


@pytest.mark.parametrize("text", STAGES, ids=["next dump", "own GPUs"])
def test_stages(text: str, tmp_path: Path) -> None:
    (web,) = [text for text in RECIPES if text.startswith("name: web")]
    newer = "  newer: {stage: tokens, corpus: corpus, tokenizer: tokenizer}\n"
    own = "".join(f"  {line}\n" for line in text.splitlines())
    (tmp_path / "web.yaml").write_text(web)
    (tmp_path / "more.yaml").write_text(f"name: more\nextends: web.yaml\nstages:\n{newer}{own}")
    config = load_recipe(str(tmp_path / "more.yaml")).steps["base"].config.model_dump()
    assert set(parse(text)["base"]) - {"stage", "train_tokens"} <= set(config)


def test_hardware_and_pricing(tmp_path: Path) -> None:
    (block,) = [text for text in blocks() if text.startswith("hardware:")]
    (tmp_path / "mine.yaml").write_text(f"extends: small\n{block}\n")
    file = load_recipe(str(tmp_path / "mine.yaml")).file
    assert file.hardware == Hardware(device="h100"), "what is shown are the defaults"
    assert file.pricing == Pricing()


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(line: str) -> None:
    typed = re.split(r"\s{3,}|#", line.removeprefix("raylm "))[0].replace("...", "URL")
    names, *rest = typed.replace(" | ", "|").split()
    commands = get_command(app)
    for name in names.split("|"):
        command = commands.commands[name]  # type: ignore[attr-defined]
        command.make_context(name, list(rest), resilient_parsing=False).close()
