"""The entry script, as far as it can be tried without making an environment."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "run", *args], cwd=cwd, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("script", ["run", ".ci/run"])
def test_script_is_executable_and_parses(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    checked = subprocess.run(["bash", "-n", ROOT / script], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("args", [(), ("help",), ("--help",)])
def test_help_lists_every_command(args: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line[2] != " "]
    assert listed == ["flight", "serve", "test", "lab", "help"]


def test_unknown_command_is_a_usage_error_with_a_hint() -> None:
    done = run("fligth")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "'fligth'" in done.stderr
    assert "./run help" in done.stderr


def test_continuous_integration_runs_what_a_developer_runs() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec ./run test"]


def test_every_locked_package_is_pinned_and_hashed_and_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    packages = text.replace("\\\n", " ").splitlines()
    requirements = [line for line in packages if line and not line.lstrip().startswith("#")]
    assert requirements
    assert all("==" in line and "--hash=sha256:" in line for line in requirements)
    assert "://" not in text
    assert "--find-links" not in text
