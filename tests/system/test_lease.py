"""A person leases a real emulated host, boots Xen on it, works there, hands it over and gives it back."""

from __future__ import annotations

import json
import time

import pytest
from lab_cli import Cli

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

IMAGE = "dom0-xen-4.20-amd64"


def host(cli: Cli) -> tuple[str, str | None]:
    shown = json.loads(cli.run("host", "show", "emu0", "--json").stdout)
    return shown["state"], shown["holder"]


def test_a_leased_host_boots_xen_for_its_holder_alone_and_is_switched_off_when_it_is_given_back(cli: Cli) -> None:
    ann, bob = ("--as", "ann"), ("--as", "bob")
    assert cli.run("image", "build", IMAGE).returncode == 0
    assert cli.run("host", "lease", "emu0", "--for", "1h", "--why", "a hang", *ann).returncode == 0
    assert host(cli) == ("leased", "ann")
    refused = cli.run("host", "power", "emu0", "on", *bob)
    assert (refused.returncode, "ann" in refused.stderr) == (2, True)
    assert cli.run("host", "power", "emu0", "on", "--image", IMAGE, *ann).returncode == 0
    assert cli.machines_on() == ["emu0"]

    until = time.monotonic() + 90
    while (done := cli.run("host", "run", "emu0", "xl", "info", *ann)).returncode != 0:
        assert time.monotonic() < until, done.stderr
        time.sleep(1)
    assert "xen_major" in done.stdout
    assert cli.run("host", "run", "emu0", "sh", "-c", "exit 7", *ann).returncode == 7
    assert cli.run("host", "run", "emu0", "echo", "a; reboot", *ann).stdout == "a; reboot\n"
    assert cli.run("host", "run", "emu0", "true", *bob).returncode == 2

    assert cli.run("host", "hand-over", "emu0", "--to", "bob", *ann).returncode == 0
    assert cli.run("host", "run", "emu0", "xl", "list", *bob).returncode == 0
    assert cli.run("host", "run", "emu0", "true", *ann).returncode == 2
    assert cli.run("host", "release", "emu0", *bob).returncode == 0
    assert cli.machines_on() == []
    assert host(cli) == ("free", None)
