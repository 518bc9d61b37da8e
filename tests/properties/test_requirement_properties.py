"""The requirement language: all of it works, nothing else is let in."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import hosts, requirement_texts

from lab.errors import ConfigError
from lab.flights.recipe import Role
from lab.flights.requests import role_requirement
from lab.flights.runvars import Runvars
from lab.hosts.model import Health, Host, Requirement


@given(requirement_texts, hosts())
def test_nothing_is_missing_iff_the_host_matches(text: str, host: Host) -> None:
    requirement = Requirement(text)
    assert (requirement.missing(host) == ()) == requirement.offered_by(host)


@given(requirement_texts, hosts())
def test_a_host_in_burn_in_is_for_those_alone_who_ask_for_it(text: str, host: Host) -> None:
    in_burn_in = host.health is Health.BURN_IN
    offered = Requirement(text).offered_by(host)
    assert Requirement(text).matches(host) == (offered and not in_burn_in)
    assert Requirement(f"({text or 'True'}) and burn_in").matches(host) == (offered and in_burn_in)


@given(requirement_texts, requirement_texts, hosts())
def test_and_or_not_mean_what_they_say(left: str, right: str, host: Host) -> None:
    one, two = Requirement(left).offered_by(host), Requirement(right).offered_by(host)
    assert Requirement(f"({left}) and ({right})").offered_by(host) == (one and two)
    assert Requirement(f"({left}) or ({right})").offered_by(host) == (one or two)
    assert Requirement(f"not ({left})").offered_by(host) == (not one)


@given(st.text(max_size=60))
def test_any_text_is_either_a_requirement_or_a_config_error(text: str) -> None:
    try:
        requirement = Requirement(text)
    except ConfigError:
        return
    assert requirement.matches(Host(name="h", arch="x86_64")) in (True, False)


_ALLOWED = (
    ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Compare, ast.Name, ast.Constant, ast.Load,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip


_TOKENS = (
    "a", "b", "(", ")", "[", "]", "{", "}", ".", ",", ":", "=", "==", "<", '"s"', "1", "and", "or", "not", "in", "is",
    "if", "else", "lambda", "for", "**", "*", "-", "~", "@", "await", 'f"{a}"', "#", "\\", ";",
)  # fmt: skip


@given(st.lists(st.sampled_from(_TOKENS), max_size=8).map(" ".join))
def test_what_is_accepted_holds_only_what_the_language_has(text: str) -> None:
    try:
        Requirement(text)
    except ConfigError:
        return
    if text.strip():
        assert all(isinstance(node, _ALLOWED) for node in ast.walk(ast.parse(text, mode="eval").body))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "hvm()",
        "hvm.real",
        "flags[0]",
        "(lambda: hvm)()",
        "[h for h in hosts]",
        "cores + 1 > 2",
        "1 < cores < 4",
        "4 == cores",
        "cores == other",
        "cores in (1, 2)",
        "hvm is True",
        "-1",
        "1",
        '"hvm"',
        "None",
        "cores == None",
        "cores == -1",
        "cores == 1j",
        'name == b"h1"',
        'name == f"{name}"',
        "(hvm := True)",
        "hvm if slow else iommu",
        "hvm, iommu",
        "hvm; iommu",
        "hvm and",
        "(hvm",
        "hvm)",
        "hvm\\",
        "hvm = 1",
        "await hvm",
        "*hvm",
        "...",
        "hvm & iommu",
        "~hvm",
        "\0",
        "9" * 5000 + " == cores",
        "cores == " + "9" * 4000 + "0" * 4000,
        "(" * 1000 + "hvm" + ")" * 1000,
        "not " * 1000 + "hvm",
        "not " * 5000 + "hvm",
        "-" * 2000 + "hvm",
    ],
    ids=lambda text: text[:24],
)
def test_what_is_outside_the_language_is_refused_in_words(text: str) -> None:
    with pytest.raises(ConfigError, match="host requirement"):
        Requirement(text)


def test_evaluation_runs_no_code() -> None:
    class Trap(str):
        __slots__ = ()

        def __call__(self) -> None:
            raise AssertionError("code was run")

    host = Host(name=Trap("h"), arch=Trap("x86_64"), flags=frozenset({Trap("hvm")}))
    assert Requirement("hvm").matches(host)


def test_a_missing_property_satisfies_no_comparison_and_types_do_not_mix() -> None:
    host = Host(name="h", arch="x86_64", properties={"cores": 4, "rack": "b"})
    for text in ('size == ""', "size != 3", "size < 3", "size >= 0"):
        assert not Requirement(text).matches(host)
    for text in ('cores < "9"', "rack > 1", "rack >= True"):
        assert not Requirement(text).matches(host)
    for text in ("cores == 4", "cores >= 4.0", 'rack < "c"', 'name == "h"', 'arch != "arm64"'):
        assert Requirement(text).matches(host)


def test_what_is_missing_is_told_part_by_part() -> None:
    host = Host(name="h", arch="arm64", flags=frozenset({"hvm"}))
    requirement = Requirement('arch == "x86_64" and hvm and (iommu or slow)')
    assert requirement.missing(host) == ("arch == 'x86_64'", "iommu or slow")


HOST = Host(name="h1", arch="x86_64", flags=frozenset({"hvm"}))


@given(
    st.one_of(
        requirement_texts,
        st.lists(st.sampled_from(["(", ")", "#", "hvm", "or", "and", "not", "True", '"', "'", "\\", "=="])).map(
            " ".join
        ),
    ),
    st.sampled_from(["all_hostflags", "host_hostflags"]),
)
def test_a_submitters_requirement_cannot_escape_its_parentheses(text: str, runvar: str) -> None:
    role = Role(name="host", requirement="hvm and slow")  # HOST is not slow: nothing may make it match
    try:
        requirement = role_requirement(role, Runvars({runvar: text}))
    except ConfigError:
        return
    assert not requirement.matches(HOST)


def test_all_three_requirements_of_a_role_must_be_met() -> None:
    role = Role(name="src", requirement="hvm")
    met = role_requirement(role, Runvars({"all_hostflags": "iommu or slow", "src_hostflags": 'name == "h1"'}))
    assert met.matches(Host(name="h1", arch="x", flags=frozenset({"hvm", "slow"})))
    for other in (
        Host(name="h2", arch="x", flags=frozenset({"hvm", "slow"})),
        Host(name="h1", arch="x", flags=frozenset({"hvm"})),
        Host(name="h1", arch="x", flags=frozenset({"slow"})),
    ):
        assert not met.matches(other)
    assert role_requirement(Role(name="host"), Runvars({})).matches(HOST)


@pytest.mark.parametrize(
    ("all_flags", "role_flags"), [("True) or (True", ""), ("hvm #", "iommu"), ("(hvm", "iommu)"), ('"', '"')]
)
def test_requirements_that_only_parse_together_are_refused(all_flags: str, role_flags: str) -> None:
    with pytest.raises(ConfigError):
        role_requirement(
            Role(name="host", requirement="slow"), Runvars({"all_hostflags": all_flags, "host_hostflags": role_flags})
        )
