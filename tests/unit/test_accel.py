"""Which accelerator emulated hosts use."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.hosts.drivers.machine import accel


@pytest.mark.parametrize(("works", "expected"), [(True, "kvm"), (False, "tcg")])
def test_hosts_that_boot_at_once_find_out_once_whether_kvm_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool, expected: str
) -> None:
    tried: list[str] = []

    def runs(wanted: str) -> bool:
        tried.append(wanted)
        time.sleep(0.05)
        return works

    monkeypatch.setattr(accel, "runs", runs)
    monkeypatch.setattr(os, "access", lambda *_: True)
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda _: accel.choose("auto", tmp_path), range(4)))
    assert found == [expected] * 4
    assert tried == ["kvm"]
    assert len(list(tmp_path.iterdir())) == 1  # the note, and nothing half-written
