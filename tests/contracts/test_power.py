"""What every `Power` promises, held against the fake and against a QEMU."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import InfraError
from lab.hosts.drivers.machine import processes
from lab.hosts.drivers.machine.place import Place
from lab.hosts.drivers.machine.qemu import ARCHITECTURES, QemuPower
from lab.hosts.drivers.machine.x86 import X86
from lab.hosts.fakes import FakePower
from lab.hosts.power import cycle, switch
from lab.hosts.protocols import BootTarget, Power
from lab.labfile import QemuSettings

needs_qemu = pytest.mark.skipif(
    not all(shutil.which(arch.program) for arch in ARCHITECTURES.values()), reason="QEMU is not installed"
)


@contextlib.contextmanager
def machine(folder: Path, arch: str) -> Iterator[QemuPower]:
    settings = QemuSettings(method="qemu", memory_mib=512, dom0_memory_mib=256, accel="tcg")
    power = QemuPower(Place(folder, "machine"), settings, 1, ARCHITECTURES[arch])
    yield power
    power.set(False)
    switch_lock = power.place.switch_folder / "switch.lock"
    if (pid := processes.find(switch_lock, str(power.place.switch_folder))) is not None:
        processes.end(pid, str(power.place.switch_folder), signal.SIGTERM, within_s=5)


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[QemuPower]:
    with machine(tmp_path, "x86_64") as power:
        yield power


@pytest.fixture(params=["fake", "slow fake", *(pytest.param(arch, marks=needs_qemu) for arch in ARCHITECTURES)])
def power(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Power]:
    match request.param:
        case "fake":
            yield FakePower()
        case "slow fake":
            yield FakePower(slow=3)
        case arch:
            with machine(tmp_path, arch) as found:
                yield found


def test_it_is_what_it_was_set_to(power: Power) -> None:
    assert power.get() is False
    switch(power, True, wait=time.sleep)
    assert power.get() is True
    switch(power, False, wait=time.sleep)
    assert power.get() is False


def test_setting_what_is_set_already_is_no_error(power: Power) -> None:
    power.set(False)
    switch(power, True, wait=time.sleep)
    power.set(True)
    assert power.get() is True
    switch(power, False, wait=time.sleep)
    power.set(False)
    assert power.get() is False


def test_a_cycle_ends_with_power(power: Power) -> None:
    cycle(power, wait=time.sleep)
    cycle(power, wait=time.sleep)
    assert power.get() is True


def test_a_machine_that_refuses_or_lies_is_told() -> None:
    with pytest.raises(InfraError):
        switch(FakePower(refuses=True), True, wait=lambda _: None)
    with pytest.raises(InfraError, match="otherwise"):
        switch(FakePower(stuck=True), True, wait=lambda _: None)
    switch(FakePower(blind=True), True, wait=lambda _: None)


@needs_qemu
def test_a_machine_killed_from_outside_is_off_and_starts_again(qemu: QemuPower) -> None:
    qemu.set(True)
    pid = int(qemu.place.pid_file.read_text())
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while qemu.get() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert qemu.get() is False
    qemu.set(True)
    assert qemu.get() is True


@needs_qemu
def test_a_pid_that_is_somebody_elses_now_is_neither_on_nor_ended(qemu: QemuPower) -> None:
    qemu.place.create()
    qemu.place.pid_file.write_text(str(os.getpid()))
    qemu.place.recorder_pid_file.write_text(str(os.getpid()))
    assert qemu.get() is False
    qemu.set(False)


@needs_qemu
def test_a_machine_whose_folder_was_removed_is_still_switched_off(qemu: QemuPower) -> None:
    qemu.set(True)
    pid = int(qemu.place.pid_file.read_text())
    shutil.rmtree(qemu.place.folder)
    qemu.set(False)
    assert not processes.bears(pid, qemu.place.uuid)
    assert processes.search(qemu.place.uuid, program="") is None


@needs_qemu
def test_a_machine_that_cannot_start_says_why_at_once(qemu: QemuPower, tmp_path: Path) -> None:
    no_kernel = tmp_path / "no-kernel"
    no_kernel.write_text("this is no kernel")
    qemu.place.save_target(BootTarget(key="none", hypervisor=no_kernel, kernel=no_kernel, initramfs=no_kernel))
    with pytest.raises(InfraError, match="did not start") as caught:
        qemu.set(True)
    assert caught.value.evidence is not None
    assert "kernel" in caught.value.evidence.output
    assert processes.search(qemu.place.uuid, program="") is None
    impossible = QemuPower(qemu.place, qemu.settings, 1, arch=X86(program="qemu-system-of-nobody"))
    with pytest.raises(InfraError, match="not installed"):
        impossible.set(True)
    assert qemu.get() is False


@needs_qemu
def test_the_boot_record_is_new_at_each_power_on(qemu: QemuPower) -> None:
    qemu.set(True)
    first = qemu.place.boot()
    qemu.set(False)
    qemu.set(True)
    second = qemu.place.boot()
    assert first is not None
    assert second is not None
    assert first.mark != second.mark
