"""HVM guests: what boots them, their boot disk, and the stub domain beside them, with a host in memory."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from test_testcases_steps import GUEST_RUNVARS, FakeContext, FakeGuest, FakeHost, image_output

from lab.errors import Blocked, ConfigError, StepFailure
from lab.flights.boot_disk import boot_sector, partitions
from lab.flights.runvars import Runvars
from lab.flights.steps import GuestFiles, SkipStep
from lab.hosts.drivers.guest.xl import configuration
from testcases._guests import Guest, guest_config
from testcases.disk_boot_check import disk_boot_check
from testcases.disk_boot_create import disk_boot_create
from testcases.disk_remove import disk_remove
from testcases.fault_inject import fault_inject
from testcases.guest_start import firmware_lines
from testcases.stubdom_labels import label_problem
from testcases.support_check import support_check

FILES = GuestFiles(kernel="/m/g/vmlinux", ramdisk="/m/g/initramfs", bzimage="/m/g/vmlinuz", disk="/m/g/disk.raw")
STUBDOM = GuestFiles(kernel="/m/s/vmlinux", ramdisk="/m/s/initramfs")
SECTOR_0 = boot_sector(bytes(510) + b"\x55\xaa", partitions(system_mib=14, disk_mib=31))


def config(stubdom: GuestFiles | None = None, files: GuestFiles = FILES, **runvars: str) -> Any:
    values = {"guest_kind": "hvm", "disk_format": "raw", **runvars}
    return guest_config(Runvars(values), files, job="1.t", host_address="192.168.77.1", stubdom=stubdom)


def test_an_hvm_guest_gets_the_kernel_that_a_bios_can_start() -> None:
    assert config().kernel == "/m/g/vmlinuz"
    with pytest.raises(ConfigError) as caught:
        config(files=GuestFiles(kernel="/m/t/vmlinux", ramdisk="/m/t/initramfs"))
    assert "guest-hvm" in str(caught.value.hint)


def test_a_guest_with_a_boot_disk_has_no_other_way_to_boot() -> None:
    text = configuration(config(disk_path="/s/guest.raw", disk_boot_token="t"))
    assert 'boot = "c"' in text
    assert "target=/s/guest.raw" in text
    assert "kernel" not in text
    assert "ramdisk" not in text
    assert "extra" not in text


def test_a_guest_with_nothing_to_boot_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to boot"):
        configuration(config(disk_boot_token="t"))


def test_a_stub_domain_is_asked_for_with_its_own_kernel_and_the_disk_as_a_device() -> None:
    asked = config(STUBDOM, stubdom_image="s", disk_path="/s/x", disk_device="/dev/loop0", disk_boot_token="t")
    lines = configuration(asked).splitlines()
    assert 'stubdomain_kernel = "/m/s/vmlinux"' in lines
    assert 'stubdomain_ramdisk = "/m/s/initramfs"' in lines
    assert "device_model_stubdomain_override = 1" in lines
    assert 'disk = [ "format=raw,vdev=xvda,access=rw,target=/dev/loop0" ]' in lines


# --- the stub domain beside the guest


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def ctx(host: FakeHost) -> FakeContext:
    ctx = FakeContext(
        {"host": host}, values={**GUEST_RUNVARS, "guest_kind": "hvm", "stubdom_image": "stubdom-xen-4.17"}
    )
    ctx.runvars.set("disk_format", "raw")
    ctx.guest_files = lambda image: FILES if image == GUEST_RUNVARS["guest_image"] else STUBDOM  # type: ignore[method-assign]
    return ctx


def run_guests(host: FakeHost, *names: str) -> None:
    host.toolstack.running[:] = [FakeGuest(domid=number, name=name) for number, name in enumerate(names, 1)]


def test_the_guest_and_its_stub_domain_are_there_and_nobody_else(ctx: FakeContext, host: FakeHost) -> None:
    run_guests(host, "guest-dm", "guest")
    assert Guest(ctx, host).require_listed().name == "guest"
    run_guests(host, "guest", "guest-dm", "guest--incoming")
    with pytest.raises(StepFailure, match="only 'guest' should be there"):
        Guest(ctx, host).require_listed()


@pytest.mark.parametrize("others", [(), ("other",)])
def test_a_guest_that_lost_its_stub_domain_fails_and_says_so(
    ctx: FakeContext, host: FakeHost, others: tuple[str, ...]
) -> None:
    run_guests(host, "guest", *others)
    with pytest.raises(StepFailure, match="'guest-dm', the stub domain with the guest's device model, should run"):
        Guest(ctx, host).require_listed()


def test_a_stub_domain_that_crashed_is_no_stub_domain(ctx: FakeContext, host: FakeHost) -> None:
    run_guests(host, "guest", "guest-dm")
    host.toolstack.running[1].state = "c"
    with pytest.raises(StepFailure, match="stub domain"):
        Guest(ctx, host).require_listed()


def test_without_a_stub_domain_a_second_domain_is_one_too_many(ctx: FakeContext, host: FakeHost) -> None:
    ctx.runvars.set("stubdom_image", "")
    run_guests(host, "guest", "guest-dm")
    with pytest.raises(StepFailure, match="only 'guest' should be there"):
        Guest(ctx, host).require_listed()


def test_a_stub_domain_that_outlives_its_guest_is_seen(ctx: FakeContext, host: FakeHost) -> None:
    run_guests(host, "guest-dm")
    with pytest.raises(StepFailure, match="no guest should be there, but there is guest-dm"):
        Guest(ctx, host).require_none("after destroy")


def test_a_domain_that_is_dying_gets_the_time_to_go(ctx: FakeContext, host: FakeHost) -> None:
    run_guests(host, "(null)")
    host.toolstack.running[0].state = "pd"
    ctx.wait = lambda seconds: host.toolstack.running.clear()  # type: ignore[method-assign]
    Guest(ctx, host).require_none("after destroy")
    assert not host.toolstack.running


def test_a_domain_that_dies_for_ever_is_seen(ctx: FakeContext, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testcases._guests.DYING_LIMIT_S", 0.0)
    run_guests(host, "(null)")
    host.toolstack.running[0].state = "pd"
    with pytest.raises(StepFailure, match="no guest should be there, but there is"):
        Guest(ctx, host).require_none("after destroy")


INFO = "xen_major : 4\nxen_minor : {}\nxen_extra : .5\nxen_caps : {}\n"
CAPS = "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_64 "


@pytest.mark.parametrize(
    ("minor", "caps", "reason"),
    [
        (17, CAPS, None),
        (20, CAPS, "holds programs of Xen 4.17, but Xen 4.20.5 is running"),
        (13, CAPS, "knows no Linux stub domains"),
        (17, "hvm-3.0-x86_64", "no PV guests"),
        (17, "xen-3.0-x86_64", "no HVM guests"),
    ],
)
def test_where_a_stub_domain_cannot_run_the_job_is_blocked(
    ctx: FakeContext, host: FakeHost, minor: int, caps: str, reason: str | None
) -> None:
    host.shell.answers = {"xl info": INFO.format(minor, caps)}
    ctx.args = {"needs": "stubdom"}
    if reason is None:
        support_check(ctx)
    else:
        with pytest.raises(Blocked, match=reason):
            support_check(ctx)


def test_a_toolstack_without_the_proxy_to_a_stub_domains_qemu_blocks_the_job(ctx: FakeContext, host: FakeHost) -> None:
    host.shell.answers = {"xl info": INFO.format(17, CAPS), "command -v vchan-socket-proxy": (127, "")}
    ctx.args = {"needs": "stubdom"}
    with pytest.raises(Blocked, match="dom0 has no vchan-socket-proxy"):
        support_check(ctx)


# --- the boot disk


@pytest.fixture
def disk_host(host: FakeHost) -> FakeHost:
    host.shell.answers = {
        "qemu-img info": json.dumps({"format": "raw", "virtual-size": 31 << 20}),
        "| base64 512": base64.b64encode(SECTOR_0).decode(),
        "stat -c": image_output(bytes(8192)),
        "losetup --find": "/dev/loop3\n",
    }
    return host


def test_a_boot_disk_is_made_with_the_jobs_arguments_and_removed_with_its_loop_device(
    ctx: FakeContext, disk_host: FakeHost
) -> None:
    disk_boot_create(ctx)
    values = ctx.runvars
    assert (values.get("disk_path"), values.get("disk_device")) == ("/lab/scratch/guest.raw", "/dev/loop3")
    assert (values.get("disk_data_at"), values.get("disk_size")) == ("15", "16")
    assert f"lab.boot={values.get('disk_boot_token')}" in disk_host.shell.stdins[0].decode()
    disk_remove(ctx)
    assert disk_host.shell.commands[-2:] == ["losetup --detach /dev/loop3", "rm /lab/scratch/guest.raw"]
    assert values.get("disk_device") == ""


def test_without_a_stub_domain_the_file_itself_is_the_disk(ctx: FakeContext, disk_host: FakeHost) -> None:
    ctx.runvars.set("stubdom_image", "")
    disk_boot_create(ctx)
    assert ctx.runvars.get("disk_device") == ""


def test_an_image_without_a_boot_disk_is_a_mistake_of_the_submitter(ctx: FakeContext, disk_host: FakeHost) -> None:
    ctx.guest_files = lambda _: STUBDOM  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="no disk to boot from"):
        disk_boot_create(ctx)


def test_a_disk_without_a_partition_for_data_fails(ctx: FakeContext, disk_host: FakeHost) -> None:
    disk_host.shell.answers["| base64 512"] = base64.b64encode(bytes(512)).decode()
    with pytest.raises(StepFailure, match="has 0 partitions"):
        disk_boot_create(ctx)


def test_a_fault_waits_for_its_point_of_the_recipe(ctx: FakeContext, disk_host: FakeHost) -> None:
    ctx.runvars.set("disk_path", "/lab/scratch/guest.raw")
    ctx.runvars.set("fault", "boot-corrupt")
    with pytest.raises(SkipStep):
        fault_inject(ctx)
    ctx.args = {"point": "disk"}
    fault_inject(ctx)
    assert disk_host.shell.commands[-1] == "qemu-io -f raw -c write -q -P 0 0 512 /lab/scratch/guest.raw"


def test_a_stub_domain_can_only_be_lost_where_there_is_one(ctx: FakeContext, disk_host: FakeHost) -> None:
    ctx.runvars.set("fault", "stubdom-lost")
    fault_inject(ctx)
    assert disk_host.shell.commands[-1] == "xl destroy guest-dm"
    ctx.runvars.set("stubdom_image", "")
    with pytest.raises(ConfigError, match="no stub domain"):
        fault_inject(ctx)


@pytest.mark.parametrize(
    ("cmdline", "rest", "good"),
    [
        ("quiet lab.boot=t0k", ("Xen", "/sys/block/xvda/xvda1", "/sys/block/xvda/xvda2", "32768"), True),
        ("quiet lab.boot=t0kx", ("Xen", "/sys/block/xvda/xvda1", "/sys/block/xvda/xvda2", "32768"), False),
        ("quiet lab.boot=t0k", ("Xen", "/sys/block/xvda/xvda1", "32768"), False),
        ("quiet lab.boot=t0k", ("Xen", "/sys/block/xvda/xvda1", "/sys/block/xvda/xvda2", "2"), False),
    ],
)
def test_a_guest_must_come_from_the_disk_of_this_job(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch, cmdline: str, rest: tuple[str, ...], good: bool
) -> None:
    ctx.runvars.set("disk_boot_token", "t0k")
    ctx.runvars.set("disk_size", "16")
    monkeypatch.setattr(Guest, "shell", lambda *_args, **_more: (cmdline, *rest))
    if good:
        disk_boot_check(ctx)
    else:
        with pytest.raises(StepFailure, match="the guest should have"):
            disk_boot_check(ctx)


def test_what_a_guests_firmware_says_is_found_on_the_hosts_console() -> None:
    console = "(XEN) something\r\n(d12) SeaBIOS\r\n(XEN) [2026] (d1) no\r\n(d12) No bootable device.\r\n"
    assert firmware_lines(console) == "SeaBIOS\nNo bootable device."


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ({"guest": "system_u:system_r:domU_t", "guest-dm": "system_u:system_r:dm_dom_t"}, None),
        ({"guest": "system_u:system_r:domU_t", "guest-dm": "system_u:system_r:domU_t"}, "'guest-dm' should have"),
        ({"guest": "system_u:system_r:domU_t_x", "guest-dm": "system_u:system_r:dm_dom_t"}, "'guest' should have"),
        ({"guest": "-", "guest-dm": "system_u:system_r:dm_dom_t"}, "'guest' should have"),
        ({"guest": "system_u:system_r:domU_t"}, "'guest-dm' should have a label of type dm_dom_t, but has none"),
    ],
)
def test_guest_and_stub_domain_have_labels_of_their_own_types(labels: dict[str, str], problem: str | None) -> None:
    said = label_problem(labels, {"guest": "domU_t", "guest-dm": "dm_dom_t"})
    assert said == problem or (problem is not None and said is not None and said.startswith(problem))
