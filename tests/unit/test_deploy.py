"""The examples and the operator's page name settings, commands and options that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from lab.cli import main
from lab.settings import PROJECT, Settings

DEPLOY, PAGE = PROJECT / "deploy", PROJECT / "docs" / "operating.md"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
TEXTS = [PAGE, *(path for path in sorted(DEPLOY.rglob("*")) if path.is_file())]
NOT_OURS = {"LAB_DATABASE_PASSWORD"}
"""What compose.yaml asks for itself."""


def known(words: list[str]) -> None:
    """Check that these words are a command of ours with options that it has."""
    command: click.Command = main
    context = click.Context(main)
    rest = list(words)
    while rest and isinstance(command, click.Group) and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        if found is None:
            break
        command = found
        rest.pop(0)
    assert command is not main, f"there is no command {words}"
    options = {name for parameter in command.params for name in parameter.opts}
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in options | {"--help", "--version"}, f"{words}: no option {word}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_the_settings_that_are_named_exist(path: Path) -> None:
    settings = {f"LAB_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"LAB_[A-Z_]+", path.read_text())) <= settings | NOT_OURS


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_start_commands_that_exist(unit: Path) -> None:
    [command] = re.findall(r"^ExecStart=\S+/lab (.*)$", unit.read_text(), re.MULTILINE)
    known(command.split())


def test_the_containers_run_commands_that_exist() -> None:
    commands = re.findall(r'^    command: \["(?!redis)(.*)"\]$', (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        known(command.split('", "'))


def test_the_page_names_commands_that_exist() -> None:
    named = re.findall(r"`lab ([a-z][^`]*)`", PAGE.read_text())
    assert len(named) > 10
    for command in named:
        known(command.replace("…", "").split())


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_with_the_units(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if unit.name.partition(".")[0].rstrip("@") in line]
    assert [line for line in lines if "is not executable" not in line] == []
