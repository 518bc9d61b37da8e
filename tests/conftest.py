"""What every test may count on: no settings of the developer's own lab, no network, moderate property tests."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("suite", max_examples=30, deadline=None)
hypothesis.settings.register_profile("long", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

FREE_MARKS = ("system", "browser", "benchmark")
"""Tests that may use the developer's lab and reach their machines by any address."""


class _Fence:
    closed = False


def _local(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0])
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _Fence.closed and not _local(args[1]):
        raise RuntimeError(f"a test may not connect to {args[1]!r}: only to this machine")


sys.addaudithook(_watch)


def _is_free(request: pytest.FixtureRequest) -> bool:
    return any(request.node.get_closest_marker(mark) for mark in FREE_MARKS)


@pytest.fixture(scope="session")
def _no_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _own_world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _no_home: Path) -> Iterator[None]:
    """No `LAB_` settings from outside, a home of its own, and connections to this machine only."""
    if _is_free(request):
        yield
        return
    for name in [name for name in os.environ if name.startswith("LAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAB_HOME", str(_no_home / "lab"))
    monkeypatch.setenv("XDG_STATE_HOME", str(_no_home))
    _Fence.closed = True
    yield
    _Fence.closed = False
