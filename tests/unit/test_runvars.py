"""Runvars: checked where they enter and where they are used."""

from __future__ import annotations

import pytest

from lab.errors import ConfigError, LabBug, NotFoundError
from lab.flights.reuse import readable_inputs
from lab.flights.runvars import MAX_LENGTH, Runvars, check_runvar


@pytest.mark.parametrize("name", ["dom0_mem", "fault", "all_hostflags", "src_dom0_image", "src_hostflags"])
def test_declared_runvars_may_be_set(name: str) -> None:
    check_runvar(name, "1", ["src"])


@pytest.mark.parametrize("name", ["", "dom0_memory", "dst_dom0_image", "src_guest_kind", "src", "Fault", "fault\n"])
def test_an_unknown_runvar_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(NotFoundError, match="dom0_mem"):
        check_runvar(name, "1", ["src"])


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "\x1b[31m", "\ud800", "\u2028", "x" * (MAX_LENGTH + 1)])
def test_a_value_that_is_no_line_of_text_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="runvar fault"):
        check_runvar("fault", value, [])


def test_a_missing_runvar_is_told_by_name() -> None:
    with pytest.raises(ConfigError, match="guest_kind"):
        Runvars({"guest_kind": ""}).require("guest_kind")


@pytest.mark.parametrize("text", ["", " 5", "5 ", "+5", "0x5", "5.0", "five", "٥", "1_0", "9" * 10, "4", "11"])
def test_what_is_no_number_within_the_limits_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a number from 5 to 10"):
        Runvars({"n": text}).integer("n", 7, low=5, high=10)


def test_numbers_and_choices_are_read() -> None:
    runvars = Runvars({"n": "9", "kind": "pv", "src_kind": "pvh"})
    assert runvars.integer("n", 7, low=5, high=10) == 9
    assert runvars.integer("other", 7, low=5, high=10) == 7
    assert runvars.choice("kind", ["pv", "hvm"]) == "pv"
    assert (runvars.for_role("src", "kind"), runvars.for_role("dst", "kind")) == ("pvh", "pv")
    with pytest.raises(ConfigError, match="not one of hvm"):
        runvars.choice("kind", ["hvm"])


def test_an_output_of_a_restricted_step_reaches_the_job() -> None:
    written: dict[str, str] = {}
    outer = Runvars({"dom0_mem": "1"}, on_set=written.__setitem__)
    inner = outer.restricted(readable_inputs("host"))
    inner.set("host_boot_s", 1.5)
    assert written == {"host_boot_s": "1.5"}
    assert outer.get("host_boot_s") == "1.5"
    with pytest.raises(LabBug):
        inner.get("host_boot_s")
