"""Bells: who is woken."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import text

from lab.db.bell import PostgresBell, SocketBell
from lab.db.session import make_engine


class Bell(Protocol):
    def ring(self) -> None: ...

    def wait(self, timeout_s: float) -> bool: ...

    def close(self) -> None: ...


@pytest.fixture(params=["socket", "postgresql"])
def bells(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Bell, Bell]]:
    """(who waits, who rings), as two processes have them."""
    if request.param == "socket":
        pair: tuple[Bell, Bell] = SocketBell(tmp_path), SocketBell(tmp_path)
        yield pair
    else:
        engine = make_engine(request.getfixturevalue("postgres_database"))
        pair = PostgresBell(engine), PostgresBell(engine)
        yield pair
        engine.dispose()
    for bell in pair:
        bell.close()


def quiet(bell: Bell) -> None:
    """Begin to listen, and hear what there is to hear."""
    while bell.wait(0.05):
        pass


def test_a_ring_wakes_the_waiter_at_once(bells: tuple[Bell, Bell]) -> None:
    waiter, ringer = bells
    quiet(waiter)
    timer = threading.Timer(0.2, ringer.ring)
    begun = time.monotonic()
    timer.start()
    assert waiter.wait(10)
    assert time.monotonic() - begun < 2
    timer.join()


def test_a_ring_between_two_waits_counts_and_several_are_heard(bells: tuple[Bell, Bell]) -> None:
    waiter, ringer = bells
    quiet(waiter)
    for _ in range(3):
        ringer.ring()
    time.sleep(0.1)
    assert waiter.wait(1)
    quiet(waiter)
    ringer.ring()
    assert waiter.wait(1)


def test_without_a_ring_the_wait_ends_in_time(bells: tuple[Bell, Bell]) -> None:
    waiter, _ringer = bells
    quiet(waiter)
    begun = time.monotonic()
    assert not waiter.wait(0.2)
    assert 0.15 < time.monotonic() - begun < 2
    assert not waiter.wait(-1)


def test_ringing_where_nobody_listens_is_no_error(bells: tuple[Bell, Bell]) -> None:
    _waiter, ringer = bells
    for _ in range(1000 if isinstance(ringer, SocketBell) else 3):
        ringer.ring()


def test_more_rings_than_can_be_kept_do_not_block_the_ringer(bells: tuple[Bell, Bell]) -> None:
    waiter, ringer = bells
    quiet(waiter)
    for _ in range(2000 if isinstance(ringer, SocketBell) else 20):
        ringer.ring()
    assert waiter.wait(1)


def test_a_new_leader_hears_the_bell_of_a_dead_one(tmp_path: Path) -> None:
    dead, heir = SocketBell(tmp_path), SocketBell(tmp_path)
    dead.wait(0)
    heir.wait(0)
    SocketBell(tmp_path).ring()
    assert heir.wait(1)
    heir.close()
    dead.close()


def test_a_dead_leaders_bell_does_not_take_away_its_heirs(tmp_path: Path) -> None:
    old, heir = SocketBell(tmp_path), SocketBell(tmp_path)
    old.wait(0)
    heir.wait(0)
    old.close()
    SocketBell(tmp_path).ring()
    assert heir.wait(1)
    heir.close()


def test_labs_with_long_homes_have_bells_of_their_own(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 200)
    mine, other = SocketBell(long / "a"), SocketBell(long / "b")
    mine.wait(0)
    other.wait(0)
    SocketBell(long / "a").ring()
    assert mine.wait(1)
    assert not other.wait(0)
    mine.close()
    other.close()


def test_the_bell_survives_the_loss_of_its_connection(postgres_database: str) -> None:
    engine = make_engine(postgres_database)
    bell = PostgresBell(engine)
    quiet(bell)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"))
    deadline = time.monotonic() + 10
    bell.wait(0.1)
    quiet(bell)
    PostgresBell(engine).ring()
    while not bell.wait(0.2):
        assert time.monotonic() < deadline
    bell.close()
    engine.dispose()


def test_a_bell_whose_server_is_away_waits_instead_of_failing() -> None:
    engine = make_engine("postgresql://lab@127.0.0.1:1/lab")
    bell = PostgresBell(engine)
    bell.ring()
    begun = time.monotonic()
    bell.wait(0.3)
    assert time.monotonic() - begun >= 0.25, "else the leader would spin"
    bell.close()
    engine.dispose()
