"""Runvars and host reuse: what holds for every value."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import runvars

from lab.errors import ConfigError, LabBug
from lab.flights.reuse import HOST_INPUTS, readable_inputs, setup_key
from lab.flights.runvars import DECLARED, MAX_LENGTH, NAME, Runvars, check_runvar


def wanted(role: str, values: dict[str, str]) -> list[str]:
    return [values.get(f"{role}_{name}") or values.get(name, "") for name in HOST_INPUTS]


@given(runvars, runvars, st.sampled_from(["host", "a"]), st.sampled_from(["host", "b"]))
def test_set_ups_are_interchangeable_iff_their_declared_inputs_are_equal(
    one: dict[str, str], two: dict[str, str], role: str, other: str
) -> None:
    same = wanted(role, one) == wanted(other, two)
    assert (setup_key(role, Runvars(one)) == setup_key(other, Runvars(two))) == same


@given(runvars, st.sampled_from(HOST_INPUTS), st.text("abc", min_size=1, max_size=3))
def test_changing_an_input_of_one_role_changes_its_key_only(values: dict[str, str], name: str, value: str) -> None:
    assume(wanted("a", values)[HOST_INPUTS.index(name)] != value)
    changed = {**values, f"a_{name}": value}
    assert setup_key("a", Runvars(changed)) != setup_key("a", Runvars(values))
    assert setup_key("b", Runvars(changed)) == setup_key("b", Runvars(values))


@given(runvars)
def test_computing_a_key_reads_declared_inputs_only(values: dict[str, str]) -> None:
    assert setup_key("a", Runvars(values).restricted(readable_inputs("a"))) == setup_key("a", Runvars(values))


@given(runvars, st.sampled_from(["fault", "note", "b_dom0_image", "guest_memory"]))
def test_a_set_up_step_that_reads_anything_else_is_a_bug_of_ours(values: dict[str, str], name: str) -> None:
    restricted = Runvars(values).restricted(readable_inputs("a"))
    for read in (restricted.get, restricted.require, lambda name: restricted.integer(name, 1, low=0, high=9)):
        with pytest.raises(LabBug, match="declared inputs"):
            read(name)


@given(st.text(max_size=20), st.text(max_size=30))
def test_a_submitters_runvar_is_known_and_printable_or_refused(name: str, value: str) -> None:
    try:
        check_runvar(name, value, ["host"])
    except ConfigError:
        return
    assert name in DECLARED or name.startswith("host_")
    assert value.isprintable()
    value.encode()


@given(st.text(max_size=12), st.integers(-5, 20), st.integers(-5, 20))
def test_a_number_is_within_its_limits_or_refused(text: str, low: int, high: int) -> None:
    try:
        number = Runvars({"n": text}).integer("n", 0, low=low, high=high)
    except ConfigError:
        return
    assert low <= number <= high
    assert int(text) == number


@given(st.text(max_size=70), st.text())
def test_an_output_has_a_valid_name_and_a_bounded_value(name: str, value: str) -> None:
    written: dict[str, str] = {}
    outputs = Runvars({}, on_set=written.__setitem__)
    if NAME.fullmatch(name):
        outputs.set(name, value)
        assert written == {name: outputs.get(name)}
        assert len(outputs.get(name)) <= MAX_LENGTH
    else:
        with pytest.raises(LabBug):
            outputs.set(name, value)
        assert not written
