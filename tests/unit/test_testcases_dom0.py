"""Dom0 is of the type its Xen was asked for."""

from __future__ import annotations

import pytest
from test_testcases_steps import FakeContext, FakeHost

from lab.errors import LabBug, StepFailure
from testcases.dom0_type import dom0_type


def _on(kernel: str, console: bytes) -> FakeContext:
    host = FakeHost()
    host.shell.answers["guest_type"] = f"{kernel}\n"
    host.console.data = console
    return FakeContext({"host": host}, args={"type": "PVH"})


def test_a_pvh_dom0_is_one_by_its_own_word_and_by_xens() -> None:
    dom0_type(_on("PVH", b"(XEN) *** Building a PVH Dom0 ***\r\n"))


def test_a_dom0_of_another_type_is_a_failure() -> None:
    with pytest.raises(StepFailure, match="should be PVH, but its kernel says that it is 'PV'"):
        dom0_type(_on("PV", b"(XEN) *** Building a PV Dom0 ***\r\n"))
    with pytest.raises(StepFailure, match="Xen should say"):
        dom0_type(_on("PVH", b""))
    wrong = _on("PVH", b"")
    wrong.args = {"type": "HVM"}
    with pytest.raises(LabBug, match="HVM"):
        dom0_type(wrong)
