"""Switching a machine and reading back what it says."""

from __future__ import annotations

import pytest
from factories import FakePower

from lab.errors import InfraError
from lab.hosts.power import cycle, switch


class SlowPower(FakePower):
    """Needs some looks until it does as it was told; cannot tell at all when `blind`."""

    def __init__(self, *, looks: int = 0, blind: bool = False) -> None:
        super().__init__(on=False)
        self.looks, self.blind = looks, blind

    def get(self) -> bool | None:
        if self.blind:
            return None
        self.looks -= 1
        return self.on if self.looks < 0 else not self.on


def test_switching_waits_until_the_machine_says_so() -> None:
    waits: list[float] = []
    switch(SlowPower(looks=3), True, wait=waits.append, every_s=0.5)
    assert waits == [0.5, 0.5, 0.5]


def test_a_machine_that_never_follows_is_an_infra_error_after_all_tries() -> None:
    waits: list[float] = []
    with pytest.raises(InfraError, match="switched off"):
        switch(SlowPower(looks=99), False, wait=waits.append, tries=7)
    assert len(waits) == 7


def test_a_machine_that_cannot_tell_is_believed() -> None:
    power = SlowPower(blind=True)
    switch(power, True, wait=lambda _seconds: pytest.fail("waited"))
    assert power.switched == [True]


def test_a_cycle_is_off_then_rest_then_on() -> None:
    power, waits = FakePower(on=True), []
    cycle(power, wait=lambda seconds: waits.append((seconds, power.on)), off_s=5.0)
    assert power.switched == [False, True]
    assert waits == [(5.0, False)]


def test_the_guard_ends_the_wait() -> None:
    def guard() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        switch(SlowPower(looks=99), True, wait=lambda _seconds: None, guard=guard)


def test_a_refusal_is_passed_on() -> None:
    power = FakePower()
    power.refuses = InfraError("the PDU says no")
    with pytest.raises(InfraError, match="PDU"):
        switch(power, True, wait=lambda _seconds: None)
