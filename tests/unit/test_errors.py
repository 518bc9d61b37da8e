"""Errors: who must act, and what the command line answers."""

from __future__ import annotations

import pytest

from lab import errors
from lab.errors import Evidence, LabError

CODES = {
    "LabError": 3,
    "ConfigError": 2,
    "NotFoundError": 2,
    "InfraError": 3,
    "PowerError": 3,
    "HostDiedError": 3,
    "StepFailure": 1,
    "Blocked": 1,
    "Aborted": 4,
    "LabBug": 3,
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_each_error_has_its_exit_code(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_the_list_of_errors_is_whole() -> None:
    found = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, LabError)}
    assert found == set(CODES)


def test_an_error_reads_as_one_line_with_its_hint() -> None:
    error = LabError("the disk is full", hint="free some space", evidence=Evidence(host="h1"))
    assert str(error) == "the disk is full (free some space)"
    assert str(LabError("the disk is full")) == "the disk is full"
    assert error.evidence is not None
    assert error.evidence.host == "h1"
