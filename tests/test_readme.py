"""What the README shows is so."""

import re
import tomllib
from pathlib import Path

import pytest
import typer

from features.home import ROOT
from features.shops import load_shop
from training.cli import app
from training.propensity.config import PropensityConfig

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_shop_of_the_readme_is_valid(tmp_path: Path) -> None:
    text, _ = blocks("toml")
    (tmp_path / "myshop.toml").write_text(text)
    assert load_shop(str(tmp_path / "myshop.toml")).name == "myshop"


def test_the_target_of_the_readme_is_valid() -> None:
    _, text = blocks("toml")
    assert PropensityConfig.model_validate(tomllib.loads(text)).targets["churn"].happens is False


def test_every_command_of_the_readme_exists_and_every_command_is_in_it() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    shown = set(re.findall(r"^shopkeeper (\w+)", "\n".join(blocks("sh")), re.MULTILINE))
    table = {name for row in re.findall(r"^\| (`.*?) \|", README, re.MULTILINE) for name in re.findall(r"`(\w+)", row)}
    assert shown <= commands
    assert table == commands


@pytest.mark.parametrize("target", re.findall(r"^make ([\w-]+)", "\n".join(blocks("sh")), re.MULTILINE))
def test_every_make_target_of_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_ci_runs_the_tests_as_the_readme_does() -> None:
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")
    assert "make test " in README
