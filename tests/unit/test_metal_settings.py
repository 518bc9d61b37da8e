"""A real machine in the lab's file, and the commands that go with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.cli import main
from lab.errors import ConfigError, InfraError, LabBug
from lab.hosts.drivers import LabMachines, embedded, metal
from lab.hosts.drivers.boot.store import BootStore
from lab.hosts.drivers.metal import MetalPower
from lab.hosts.drivers.power.chain import Link, PowerChain
from lab.hosts.drivers.power.remembered import Remembered
from lab.hosts.fakes import FakePower
from lab.labfile import LabFile, load_lab_file

FILE = """
[lab]
name = "metal"
emulated_at_once = 1

[boot]
url = "http://192.168.78.1:8090"

[[host]]
name = "metal1"
arch = "x86_64"

[host.driver]
method = "metal"
address = "192.168.78.11/24"

[[host.driver.power]]
method = "command"
on = ["/bin/true"]
off = ["/bin/true"]

[host.driver.console]
method = "tcp"
address = "127.0.0.1"
port = 9

[host.driver.boot]
mac = "52:54:00:f2:00:01"

[[host]]
name = "emu0"
arch = "x86_64"
[host.driver]
method = "qemu"
"""


def load(tmp_path: Path, text: str = FILE) -> LabFile:
    file = tmp_path / "lab.toml"
    file.write_text(text)
    return load_lab_file(file)


def test_real_and_emulated_hosts_in_one_lab(tmp_path: Path) -> None:
    lab = load(tmp_path)
    assert [host.name for host in lab.hosts()] == ["metal1", "emu0"]
    limit = lab.limit()
    assert limit is not None
    assert limit.hosts == {"emu0"}  # real machines are not counted among the emulated
    machines = LabMachines(lab, tmp_path)
    machines.power_off("metal1")
    with pytest.raises(LabBug):
        metal.power_of(lab, "emu0", tmp_path)
    with pytest.raises(LabBug):
        embedded.power_of(lab, "metal1", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('url = "http://192.168.78.1:8090"', "", "url is missing"),
        ('address = "192.168.78.11/24"', 'address = "192.168.78.11"', "prefix is missing"),
        ('address = "192.168.78.11/24"', 'address = "300.1.1.1/24"', "address"),
        ('address = "192.168.78.11/24"', 'address = "192.168.78.11/24"\ngateway = "10.0.0.1"', "gateway is not on the"),
        ('mac = "52:54:00:f2:00:01"', 'mac = "52:54:00:F2:00:01; rm"', "mac"),
        ('mac = "52:54:00:f2:00:01"', 'mac = "52:54:00:f2:00:01"\nxen_args = ["a b"]', "xen_args"),
        (
            'arch = "x86_64"\n\n[host.driver]\nmethod = "metal"',
            'arch = "arm64"\n\n[host.driver]\nmethod = "metal"',
            "arm64",
        ),
        ('method = "command"', 'method = "magic"', "power"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, FILE.replace(old, new, 1))
    assert message in str(caught.value)


def test_power_arms_what_boots_and_takes_it_back() -> None:
    said: list[str] = []
    fake = FakePower()
    power = MetalPower(
        PowerChain([Link(name="bmc", power=fake)]), lambda: said.append("arm"), lambda: said.append("drop")
    )
    power.set(True)
    power.set(True)  # it is on: it boots nothing new
    assert (said, fake.on, power.get()) == (["arm"], True, True)
    power.set(False)
    assert (said, fake.on) == (["arm", "drop"], False)


def test_the_commands_write_what_dnsmasq_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(tmp_path)
    monkeypatch.setenv("LAB_FILE", str(tmp_path / "lab.toml"))
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))

    def call(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["dhcp-config", "--interface", "lab0", *words])
        return done.exit_code, done.output

    code, told = call("--address", "192.168.78.1/24")
    assert code == 0
    assert "dhcp-host=52:54:00:f2:00:01,192.168.78.11,metal1" in told
    assert "dhcp-range=192.168.78.0,proxy" in call("--address", "192.168.78.1/24", "--proxy")[1]
    assert "http://192.168.78.1:8090/boot/machine/" in call("--address", "192.168.78.1/24", "--start-script")[1]
    assert call("--address", "here")[0] == 2
    assert call("--address", "10.0.0.1/8")[0] == 2


def test_the_boot_service_hands_out_what_is_armed(tmp_path: Path) -> None:
    import asyncio

    import httpx

    from web.boot_service import create_boot_service

    store = BootStore(tmp_path / "boot")
    (tmp_path / "kernel").write_text("a kernel")
    token = store.arm(
        "52:54:00:f2:00:01", host="metal1", script=lambda one: f"#!ipxe\n# {one}\n",
        files={"kernel": tmp_path / "kernel", "initramfs": tmp_path / "kernel"}, for_s=60,
    )  # fmt: skip

    async def ask(*paths: str) -> list[tuple[int, str]]:
        transport = httpx.ASGITransport(app=create_boot_service(tmp_path))
        async with httpx.AsyncClient(transport=transport, base_url="http://lab") as client:
            answers = [await client.get(path) for path in paths]
            return [(answer.status_code, answer.text) for answer in answers]

    script = "/boot/machine/52-54-00-F2-00-01/boot.ipxe"
    mine, other, kernel, none, outside, last, again = asyncio.run(
        ask(
            script, "/boot/machine/52-54-00-f2-00-02/boot.ipxe", f"/boot/{token}/kernel", f"/boot/{token}/about.json",
            f"/boot/{token}/%2e%2e%2fsecrets.toml", f"/boot/{token}/initramfs", script,
        )
    )  # fmt: skip
    assert mine == (200, f"#!ipxe\n# {token}\n")
    assert kernel == (200, "a kernel")
    assert "its own disk" in other[1]
    assert none[0] == outside[0] == 404
    assert last[0] == 200
    assert "its own disk" in again[1]  # it has all it needs: the next boot is its own
    assert [json.loads(json.dumps(note.what)) for note in store.notes(token)] == ["boot.ipxe", "kernel", "initramfs"]


def test_a_bmc_is_asked_seldom_and_its_hiccups_are_no_answer() -> None:
    now = [0.0]
    fake = FakePower(on=True)
    seen = Remembered(fake, clock=lambda: now[0], fresh_s=15)
    assert seen.get() is True
    fake.on = False
    assert seen.get() is True  # as it was lately
    seen.forget()
    assert seen.get() is False
    now[0] += 16
    silent = Remembered(_Silent(), clock=lambda: now[0])
    assert silent.get() is None


class _Silent:
    def set(self, on: bool) -> None:
        raise AssertionError

    def get(self) -> bool | None:
        raise InfraError("the BMC does not answer")
