"""A host that a person returns is checked on real Xen, and in use again by itself; one that cannot boot is not."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab_cli import Cli
from servers import free_port

pytestmark = [pytest.mark.system, pytest.mark.proof, pytest.mark.timeout(600)]

LAB = """
[lab]
name = "test"
emulated_at_once = 1

[health]
burn_in_checks = 1

[[host]]
name = "emu0"
arch = "x86_64"
[host.driver]
method = "qemu"

[[host]]
name = "emu1"
arch = "x86_64"
[host.driver]
method = "qemu"
memory_mib = 512
dom0_memory_mib = 256
"""
NAMES = ("emu0", "emu1")


def test_a_host_is_in_use_again_after_its_checks_and_one_that_cannot_boot_is_not(
    cli: Cli, tmp_path: Path, ending: Callable[[subprocess.Popen[str]], None]
) -> None:
    """emu1 has too little memory for its dom0."""
    hosts = tmp_path / "lab.toml"
    hosts.write_text(LAB)
    lab = ("--lab", str(hosts))

    def newest(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(cli.run("host", "show", name, "--json", *lab).stdout)
        return found["health_history"][0]

    for name in NAMES:
        assert cli.run("host", "quarantine", name, "--why", "smells of smoke", *lab).returncode == 0
        assert cli.run("host", "return", name, "--why", "aired", *lab).returncode == 0
    ending(cli.start("serve", "--port", str(free_port()), *lab))
    until = time.monotonic() + 400
    while not all(newest(name)["actor"] == "lab" for name in NAMES):
        assert time.monotonic() < until, [newest(name) for name in NAMES]
        time.sleep(2)
    good, bad = newest("emu0"), newest("emu1")
    print(good, bad)
    assert (good["old"], good["new"], good["reason"]) == ("burn-in", "good", "it passed its check")
    assert (bad["old"], bad["new"]) == ("burn-in", "quarantined")
    assert bad["evidence"]["jobs"], "with the check that broke"
