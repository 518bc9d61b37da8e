"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import ConfigError
from lab.settings import PROJECT, read_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAB_CONCURRENCY", "many"),
        ("LAB_CONCURRENCY", "0"),
        ("LAB_LEASE_S", "-1"),
        ("LAB_LEASE_S", "soon"),
        ("LAB_RETRIES", "100"),
        ("LAB_MIN_FREE_MIB", "-5"),
    ],
)
def test_a_wrong_setting_is_told_by_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name) as caught:
        read_settings()
    assert "\n" not in str(caught.value)


def test_paths_are_absolute_whatever_was_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_HOME", "here")
    monkeypatch.setenv("LAB_FILE", "~/lab.toml")
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = read_settings()
    assert settings.home == tmp_path / "here"
    assert settings.file == tmp_path / "lab.toml"
    assert settings.database == f"sqlite:///{tmp_path}/here/lab.db"
    assert settings.logs == tmp_path / "here" / "logs"


def test_without_settings_the_lab_lives_in_the_users_state_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LAB_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = read_settings()
    assert settings.home == tmp_path / "flightline"
    assert settings.file == PROJECT / "lab.toml"


def test_a_database_url_wins_over_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_DATABASE_URL", "postgresql+psycopg://lab@db/lab")
    assert read_settings().database == "postgresql+psycopg://lab@db/lab"
