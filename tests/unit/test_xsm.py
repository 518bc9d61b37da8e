"""XSM: what FLASK says, and what a policy's test expects."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest
from flask_lines import LOADED, MAP_DENIED, SAVE_DENIED
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import ConfigError
from lab.flights.recipe import Recipe, Role, run
from lab.flights.xsm import Access, denials, parse_avc, parse_test
from testcases._flask import Harmless, new_text, parse_booleans, parse_labels, since_boot, unexpected

POLICIES = Path(__file__).parents[2] / "xsm_policies"


@pytest.mark.parametrize("module", ["lab.flights.xsm", "testcases._flask"])
def test_the_examples_in_docstrings_are_true(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted
    assert not results.failed


# --- what FLASK says


def test_a_denial_names_both_types_the_class_and_each_permission() -> None:
    save, mapped, loaded = parse_avc(f"(XEN) Flask:  13 classes\n{SAVE_DENIED}\r\n{MAP_DENIED}\n{LOADED}\n")
    assert save.denied
    assert save.accesses == (Access(source="dom0_t", target="lab_nomigrate_t", tclass="mmu", permission="pageinfo"),)
    assert [access.permission for access in mapped.accesses] == ["map_read", "map_write"]
    assert not loaded.denied
    assert [str(access) for access in denials((save, mapped, loaded))] == [
        "dom0_t lab_nomigrate_t:mmu pageinfo",
        "domU_t isolated_domU_t:grant map_read",
        "domU_t isolated_domU_t:grant map_write",
    ]


def test_a_level_in_a_context_and_a_line_cut_short_do_no_harm() -> None:
    leveled = SAVE_DENIED.replace("system_r:dom0_t", "system_r:dom0_t:s0")
    assert parse_avc(leveled)[0].accesses[0].source == "dom0_t"
    assert parse_avc(SAVE_DENIED[:60]) == ()


@given(st.text())
def test_any_text_can_be_looked_through(text: str) -> None:
    parse_avc(text)
    parse_labels(text)
    parse_booleans(text)
    since_boot(text)


def test_labels_are_read_beside_any_name() -> None:
    labels = parse_labels(
        "Name                                        ID   Mem VCPUs\tState\tTime(s)   Security Label\n"
        "Domain-0                                     0   640     1     r-----      40.7 system_u:system_r:dom0_t\n"
        "a name with 1 2                              1    96     1     -b----       7.3 system_u:system_r:domU_t\n"
    )
    assert labels == {"Domain-0": "system_u:system_r:dom0_t", "a name with 1 2": "system_u:system_r:domU_t"}


@given(st.lists(st.text("ab\n", min_size=1), min_size=1), st.text("cd\n"), st.integers(0, 20))
def test_only_what_a_ring_has_grown_by_is_new(old: list[str], grown: str, lost: int) -> None:
    before = "\n".join(old) + "\nend\n"
    assert new_text(before, before + grown) == grown
    kept = before[lost:] if lost < len(before) else before
    if "end\n" in kept:
        assert new_text(before, kept[kept.find("\n") + 1 :] + grown).endswith(grown)


def test_a_boot_goes_from_the_last_banner_to_the_last_ready() -> None:
    console = "Xen version 4.17 (a)\nold\nLAB-HOST-READY 1\nlater\nXen version 4.17 (b)\nnew\nLAB-HOST-READY 2\nafter"
    assert "new" in (since_boot(console) or "")
    assert "later" not in (since_boot(console) or "")
    assert "after" not in (since_boot(console) or "")
    assert since_boot("no boot here") is None


def test_only_what_a_rule_covers_is_harmless() -> None:
    rules = (Harmless("dom0_t", "dom.*_t", "domain", "pause", "for the test"),)
    covered = Access(source="dom0_t", target="domU_t", tclass="domain", permission="pause")
    other = Access(source="dom0_t", target="xdomU_t", tclass="domain", permission="pause")
    assert unexpected((covered, other), rules) == (other,)


# --- what a policy's test expects


def test_every_policy_of_ours_has_a_test_that_can_be_read() -> None:
    names = sorted(path.name for path in POLICIES.iterdir() if path.is_dir())
    assert names
    for name in names:
        folder = POLICIES / name
        test = parse_test(name, (folder / "expect.toml").read_text(), where=name)
        assert any(expected.verdict == "denied" for expected in test.expectations), name
        assert any(expected.verdict == "allowed" for expected in test.expectations), name
        loosened = any(expected.loosened for expected in test.expectations)
        assert not loosened or (folder / "loosened.te").is_file(), name


GOOD = """
summary = "s"
[[expect]]
does = "grant"
guest = "a_t"
peer = "b_t"
verdict = "denied"
avc = [{ source = "a_t", target = "b_t", class = "grant", permission = "map_read" }]
"""


def test_a_good_test_is_read_as_it_stands() -> None:
    (expected,) = parse_test("p", GOOD, where="p").expectations
    assert str(expected) == "grant a_t with b_t: denied"
    assert [str(access) for access in expected.avc] == ["a_t b_t:grant map_read"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("summary", "sumary"), "summary"),
        (('summary = "s"', 'summary = "s"\nmore = 1'), "more"),
        (('does = "grant"', 'does = "gran"'), "does: 'gran' is not one of"),
        (('peer = "b_t"', ""), "peer: grant takes a guest and a peer"),
        (('verdict = "denied"', 'verdict = "denied"\nloud = true'), "loud"),
        (('verdict = "denied"', 'verdict = "allowed"'), "avc: a denial names the line"),
        (('guest = "a_t"', 'guest = "a_t; rm"'), "not a name of the policy language"),
        (('permission = "map_read"', 'permision = "map_read"'), "each is a table of source"),
        (("avc = [", "avc = [1, "), "each is a table of source"),
        (('verdict = "denied"', 'verdict = "denied"\nbooleans = { x = 1 }'), "true or false"),
        (('verdict = "denied"', 'verdict = "unknown-label"'), "a label is unknown when a guest is created"),
        (("[[expect]]", "[[expect"), "cannot be read"),
        ((GOOD[GOOD.index("[[") :], ""), "proves nothing"),
    ],
)
def test_a_mistake_in_a_test_is_named(change: tuple[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        parse_test("p", GOOD.replace(*change), where="xsm_policies/p/expect.toml")


# --- lines that only some jobs have


def test_a_line_is_there_only_when_its_runvar_is() -> None:
    recipe = Recipe(name="r", roles=(Role(name="host"),), lines=(run("a"), run("b", when="flask")))
    assert [line.step for line in recipe.lines_of({})] == ["a"]
    assert [line.step for line in recipe.lines_of({"flask": ""})] == ["a"]
    assert [line.step for line in recipe.lines_of({"flask": "enforcing"})] == ["a", "b"]
