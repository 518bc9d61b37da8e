"""Schedulers, virtual CPUs, paging and what may not be supported: what the steps read from xl, and what they say."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import pytest
from test_testcases_steps import FakeContext, FakeGuest, FakeHost

from lab.errors import Blocked, HostDiedError, LabBug, StepFailure
from lab.flights.runvars import Runvars
from lab.flights.steps import GuestFiles
from lab.hosts.fakes import ScriptedConsole
from lab.hosts.protocols import AgentReply
from testcases._guests import guest_config
from testcases._schedulers import SCHEDULERS, parse_table, parse_vcpu_list, share, shared_processors
from testcases.examine import examine
from testcases.guest_paging import guest_paging, paging_of
from testcases.guest_pvshim import guest_pvshim
from testcases.guest_scheduler import guest_scheduler
from testcases.guest_vcpus import guest_vcpus, online
from testcases.logs_capture import logs_capture
from testcases.support_check import support_check

CREDIT2 = """\
Name                                ID Weight  Cap
guest                                1    512   30
"""
RTDS = """\
Name                                ID VCPU    Period    Budget  Extratime
guest                                1    0     20000      6000         no
"""
VCPUS = """\
Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)
Domain-0                             0     0    0   r--      37.0  0 / all
guest                                1     0    1   -b-      10.7  all / all
guest                                1     1    -   --p       5.7  all / all
"""
LIST = """\
Name                                        ID   Mem VCPUs	State	Time(s)
Domain-0                                     0   640     1     r-----      58.8
"""
DUMP = """\
(XEN) 'q' pressed -> dumping domain info (now = 1)
(XEN) General information for domain 2:
(XEN)     paging assistance: hap refcounts translate external 
(XEN) 'q' pressed -> dumping domain info (now = 61602370894)
(XEN) General information for domain 0:
(XEN)     refcnt=3 dying=0 pause_count=0
(XEN) General information for domain 2:
(XEN)     refcnt=3 dying=0 pause_count=0
(XEN)     paging assistance: shadow refcounts translate external 
(XEN)     paging assistance: shadowed 4-on-4
"""  # noqa: W291 - as Xen prints it


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def ctx(host: FakeHost) -> FakeContext:
    return FakeContext({"host": host}, values={"guest_image": "guest-tiny-amd64", "guest_kind": "pv"})


@pytest.fixture
def running(host: FakeHost) -> FakeGuest:
    """The job's guest, counting."""
    guest = FakeGuest(domid=1)
    host.toolstack.running.append(guest)
    guest.live_on()
    return guest


# --- what xl prints


def test_a_scheduler_table_is_read_by_its_head() -> None:
    assert parse_table(CREDIT2, "guest") == {"ID": 1, "Weight": 512, "Cap": 30}
    assert parse_table(RTDS, "guest") == {"ID": 1, "VCPU": 0, "Period": 20_000, "Budget": 6_000, "Extratime": 0}
    assert parse_table(CREDIT2, "other") == {}
    assert parse_table("libxl_domain_sched_params_get returned credit not credit2.\n", "guest") == {}


def test_each_schedulers_settings_are_given_by_options_xl_knows() -> None:
    rtds = SCHEDULERS["rtds"]
    assert rtds.arguments("guest", rtds.limited) == (
        "sched-rtds", "-d", "guest", "-v", "all", "-p", "500000", "-b", "150000", "-e", "0",
    )  # fmt: skip
    credit = SCHEDULERS["credit"]
    assert credit.arguments("guest", credit.limited) == ("sched-credit", "-d", "guest", "-w", "512", "-c", "30")


def test_a_guests_share_is_what_it_ran_of_the_time_that_passed() -> None:
    first = "guest                    1   128     1     -b----      10.5\n100.00\n"
    second = "guest                    1   128     1     r-----      12.0\n105.00\n"
    assert share(first, second) == pytest.approx(30.0)
    assert share(first, "guest is an invalid domain identifier\n105.00\n") is None
    assert share(second, second) is None, "no time passed"


def test_virtual_cpus_that_share_a_processor_or_have_none_break_null() -> None:
    placed = parse_vcpu_list(VCPUS)
    assert [(one.domain, one.vcpu, one.cpu, one.seconds) for one in placed] == [
        ("Domain-0", 0, 0, 37.0), ("guest", 0, 1, 10.7), ("guest", 1, None, 5.7),
    ]  # fmt: skip
    assert shared_processors(placed) == ("guest/1 has no processor",)
    assert shared_processors(placed[:2]) == ()
    assert shared_processors(placed[:1] * 2) == ("Domain-0/0 and Domain-0/0 share processor 0",)


def test_the_newest_dump_tells_how_a_domains_memory_is_translated() -> None:
    assert paging_of(DUMP, 2) == "shadow"
    assert paging_of(DUMP, 0) == "neither"
    assert paging_of(DUMP, 7) == "neither"
    assert paging_of(DUMP.replace("shadow refcounts", "hap refcounts"), 2) == "hap"
    assert paging_of("", 2) == "neither"


def test_linux_lists_its_processors_in_ranges() -> None:
    assert online(("0-3",)) == (0, 1, 2, 3)
    assert online(("0,2-3",)) == (0, 2, 3)
    assert online(()) == ()


def test_a_runvar_switches_an_option_of_the_guest() -> None:
    def config(**runvars: str) -> tuple[str, object]:
        files = GuestFiles(kernel="/k", ramdisk="/r")
        made = guest_config(Runvars(dict(runvars)), files, job="1.x", host_address="192.168.77.1")
        return made.kind, made.options

    assert config(guest_kind="pvh", guest_hap="0") == ("pvh", {"hap": 0})
    assert config(guest_kind="pv", guest_pvshim="1") == ("pvh", {"pvshim": 1})
    assert config(guest_kind="pv") == ("pv", {})


# --- support


def _says(host: FakeHost, **answers: str | tuple[int, str]) -> None:
    commands = {"info": "xl info", "dmesg": "xl dmesg", "domains": "xl list", "livepatch": "xen-livepatch list"}
    host.shell.answers.update({commands[name]: answer for name, answer in answers.items()})


def test_a_scheduler_that_was_not_built_blocks_the_job_and_says_so(ctx: FakeContext, host: FakeHost) -> None:
    ctx.args = {"needs": "scheduler"}
    ctx.runvars.set("scheduler", "rtds")
    _says(host, info="nr_cpus : 1\n", dmesg="(XEN) Could not find scheduler: rtds\n")
    with pytest.raises(Blocked, match="built without the scheduler rtds"):
        support_check(ctx)
    _says(host, dmesg="(XEN) Using scheduler: SMP RTDS Scheduler (rtds)\n")
    support_check(ctx)


def test_null_needs_a_processor_for_each_virtual_cpu(ctx: FakeContext, host: FakeHost) -> None:
    ctx.args = {"needs": "scheduler"}
    ctx.runvars.set("scheduler", "null")
    _says(host, info="nr_cpus                : 1\n", domains=LIST)
    with pytest.raises(Blocked, match="2 are needed, the host has 1"):
        support_check(ctx)
    _says(host, info="nr_cpus                : 2\n")
    support_check(ctx)


def test_what_xen_cannot_do_here_blocks_the_job(ctx: FakeContext, host: FakeHost) -> None:
    ctx.args = {"needs": "shadow"}
    _says(host, info="virt_caps              : pv hvm hap\n")
    with pytest.raises(Blocked, match=r"cannot do shadow here \(it can do: pv hvm hap\)"):
        support_check(ctx)
    _says(host, info="virt_caps              : pv hvm hap shadow\n")
    support_check(ctx)
    ctx.args = {"needs": "livepatch"}
    _says(host, livepatch=(1, "Error 38: Function not implemented\n"))
    with pytest.raises(Blocked, match="without live patching: Error 38"):
        support_check(ctx)
    ctx.args = {"needs": "nested"}
    _says(host, info="virt_caps : pv hvm hap\nfree_memory : 1384\n")
    with pytest.raises(Blocked, match="needs 1536 MiB of memory, and 1384 MiB are free"):
        support_check(ctx)
    _says(host, info="virt_caps : pv hvm hap\nfree_memory : 9999\n")
    with pytest.raises(Blocked, match="needs a guest image"):
        support_check(ctx)
    ctx.args = {"needs": "xtf"}
    with pytest.raises(Blocked, match="Xen Test Framework"):
        support_check(ctx)
    ctx.args = {"needs": "magic"}
    with pytest.raises(LabBug, match="magic"):
        support_check(ctx)


def test_a_pvh_dom0_needs_a_host_whose_devices_work_in_it(ctx: FakeContext, host: FakeHost) -> None:
    ctx.args = {"needs": "dom0pvh"}
    _says(host, info="xen_commandline : loglvl=all\n", dmesg="(XEN) I/O virtualisation disabled\n")
    with pytest.raises(Blocked, match="only where it has an IOMMU"):
        support_check(ctx)
    emulated = "(XEN) ACPI: RSDP 000F59D0, 0014 (r0 BOCHS )\n(XEN) I/O virtualisation enabled\n"
    _says(host, dmesg=emulated)
    with pytest.raises(Blocked, match="never answered"):
        support_check(ctx)
    _says(host, dmesg="(XEN) I/O virtualisation enabled\n")
    with pytest.raises(Blocked, match="xen_boot_append=dom0=pvh"):
        support_check(ctx)
    _says(host, info="xen_commandline : loglvl=all dom0=pvh\n")
    support_check(ctx)


def test_a_shim_does_not_start_on_an_old_amd_unless_it_does_not_know(ctx: FakeContext, host: FakeHost) -> None:
    ctx.args = {"needs": "pvshim"}
    _says(host, info="virt_caps : pv hvm\n", dmesg="(XEN) CPU Vendor: AMD, Family 15 (0xf), Model 107\n")
    with pytest.raises(Blocked, match="no xen-shim"):
        support_check(ctx)
    host.shell.answers["xen-shim"] = "/usr/lib/xen-4.17/boot/xen-shim\n"
    with pytest.raises(Blocked, match="family 15"):
        support_check(ctx)
    ctx.runvars.set("guest_cpu_family", "23")
    support_check(ctx)


def test_a_pv_guest_without_a_xen_of_its_own_has_no_shim(ctx: FakeContext, host: FakeHost, running: FakeGuest) -> None:
    listed = '[{"domid": 1, "config": {"c_info": {"type": "%s", "name": "guest"}}}]'
    host.shell.answers |= {"list -l": listed % "pvh", "xl info": "xen_major : 4\nxen_minor : 17\nxen_extra : .5\n"}
    said = "(XEN) Xen version 4.17.5 (Debian)\n(XEN) Command line: pv-shim console=xen,pv\n"
    host.toolstack.printed = said
    guest_pvshim(ctx)
    host.toolstack.printed = said.replace("4.17.5", "4.20.4")
    with pytest.raises(StepFailure, match=r"should be a Xen 4\.17, but says that it is 4\.20\.4"):
        guest_pvshim(ctx)
    host.toolstack.printed = "LAB-GUEST ready\n"
    with pytest.raises(StepFailure, match="as a shim, but none does"):
        guest_pvshim(ctx)
    host.shell.answers["list -l"] = listed % "pv"
    with pytest.raises(StepFailure, match="should be a PVH guest, but is pv"):
        guest_pvshim(ctx)


# --- the scheduler


def _shares(host: FakeHost, *percents: float) -> None:
    """The host's answers to pairs of looks, in which the guest takes so much each."""
    looks = [
        f"guest   1   128     1     -b----      {at * percent / 100:.2f}\n{at}0"
        for percent in percents
        for at in (0.0, 3.0)
    ]
    said = iter(looks)
    real = host.shell._answer

    def answer(command: str, check: bool) -> object:
        if "uptime" in command:
            return host.shell._result(command, 0, next(said) + "\n")
        return real(command, check)

    host.shell._answer = answer  # type: ignore[method-assign,assignment]


def _credit2(host: FakeHost, ctx: FakeContext) -> None:
    ctx.runvars.set("scheduler", "credit2")
    host.shell.answers |= {
        "xl info": "xen_scheduler          : credit2\n",
        "sched-credit2 -d guest -w 512": "",
        "sched-credit2 -d guest -w 256": "",
    }
    tables = iter([CREDIT2, CREDIT2.replace("512   30", "256    0")])
    real = host.shell._answer

    def answer(command: str, check: bool) -> object:
        if command == "xl sched-credit2 -d guest":
            return host.shell._result(command, 0, next(tables))
        return real(command, check)

    host.shell._answer = answer  # type: ignore[method-assign,assignment]


def test_a_guest_held_to_its_limit_passes(ctx: FakeContext, host: FakeHost, running: FakeGuest) -> None:
    _credit2(host, ctx)
    _shares(host, 31.0, 93.0)
    guest_scheduler(ctx)
    assert (ctx.runvars.get("limited_percent"), ctx.runvars.get("unlimited_percent")) == ("31", "93")


@pytest.mark.parametrize(("limited", "unlimited"), [(80.0, 90.0), (30.0, 31.0)])
def test_a_limit_that_does_not_hold_or_does_not_end_is_a_failure(
    ctx: FakeContext, host: FakeHost, running: FakeGuest, limited: float, unlimited: float
) -> None:
    _credit2(host, ctx)
    _shares(host, limited, unlimited)
    with pytest.raises(StepFailure, match="hold a busy guest to its limit"):
        guest_scheduler(ctx)


def test_another_scheduler_than_asked_for_is_a_failure(ctx: FakeContext, host: FakeHost, running: FakeGuest) -> None:
    ctx.runvars.set("scheduler", "rtds")
    host.shell.answers |= {"xl info": "xen_scheduler          : credit2\n"}
    with pytest.raises(StepFailure, match="should be rtds, but it is credit2"):
        guest_scheduler(ctx)


def test_a_setting_that_is_not_kept_is_a_failure(ctx: FakeContext, host: FakeHost, running: FakeGuest) -> None:
    ctx.runvars.set("scheduler", "credit")
    host.shell.answers |= {"xl info": "xen_scheduler : credit\n", "sched-credit -d": CREDIT2.replace("30", "0")}
    with pytest.raises(StepFailure, match="was given"):
        guest_scheduler(ctx)


def test_under_null_two_on_one_processor_is_a_failure(ctx: FakeContext, host: FakeHost, running: FakeGuest) -> None:
    ctx.runvars.set("scheduler", "null")
    good = "\n".join(VCPUS.splitlines()[:3]) + "\n"
    host.shell.answers |= {"xl info": "xen_scheduler : null\n", "vcpu-list": good}
    guest_scheduler(ctx)
    host.shell.answers["vcpu-list"] = good.replace("0    1   -b-", "0    0   -b-")
    with pytest.raises(StepFailure, match="share processor 0"):
        guest_scheduler(ctx)


# --- virtual CPUs


@dataclass
class Kernel:
    """What the guest's kernel says of its processors, one after the other."""

    ranges: list[str]
    on: list[str] = field(default_factory=lambda: ["0", "1"])

    def put(self, guest: FakeHost) -> None:
        shell = guest.toolstack.console("guest").__class__._shell

        def answer(console: object, one: FakeGuest, argument: str) -> AgentReply:
            if "cpu/online" in argument:
                return AgentReply(ok=True, text="", lines=(self.ranges.pop(0),))
            if "taskset" in argument:
                return AgentReply(ok=True, text="", lines=(self.on.pop(0),))
            return shell(console, one, argument)  # type: ignore[arg-type]

        guest.toolstack.console("guest").__class__._shell = answer  # type: ignore[method-assign,assignment]


@pytest.fixture
def two_cpus(ctx: FakeContext, host: FakeHost, running: FakeGuest, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    console = type(host.toolstack.console("guest"))
    monkeypatch.setattr(console, "_shell", console._shell)  # put back afterwards
    ctx.runvars.set("guest_vcpus", "2")
    host.shell.answers["vcpu-list"] = VCPUS.replace("Domain-0", "other").replace("    -   --p", "    0   -b-")
    host.shell.answers["vcpu-list"] = "\n".join(
        line for line in host.shell.answers["vcpu-list"].splitlines() if not line.startswith("other")
    )
    return host


def test_a_guest_loses_a_virtual_cpu_and_gets_it_back(ctx: FakeContext, two_cpus: FakeHost) -> None:
    Kernel(["0-1", "0", "0-1"]).put(two_cpus)
    guest_vcpus(ctx)
    assert [command for command in two_cpus.shell.commands if "vcpu-set" in command] == [
        "xl vcpu-set --ignore-host guest 1",
        "xl vcpu-set --ignore-host guest 2",
    ]


def test_a_guest_with_fewer_virtual_cpus_than_asked_for_is_a_failure(ctx: FakeContext, two_cpus: FakeHost) -> None:
    Kernel(["0"]).put(two_cpus)
    with pytest.raises(StepFailure, match="should use the 2 CPUs that it was created with, but uses 0"):
        guest_vcpus(ctx)


def test_a_virtual_cpu_nothing_runs_on_is_a_failure(ctx: FakeContext, two_cpus: FakeHost) -> None:
    Kernel(["0-1"], on=["0", "0"]).put(two_cpus)
    with pytest.raises(StepFailure, match="pinned to virtual CPU 1"):
        guest_vcpus(ctx)


# --- paging


def test_the_wrong_paging_is_a_failure(ctx: FakeContext, host: FakeHost, running: FakeGuest) -> None:
    running.domid = 2
    host.shell.answers["debug-keys q"] = DUMP
    ctx.args = {"by": "shadow"}
    guest_paging(ctx)
    ctx.args = {"by": "hap"}
    with pytest.raises(StepFailure, match="by hap, but does by shadow"):
        guest_paging(ctx)


# --- what is kept after a failure


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes a second at each look."""
    clock = count()
    monkeypatch.setattr("testcases._debug_keys.time.monotonic", lambda: float(next(clock)))


def test_after_a_failure_the_debug_keys_are_kept_too(ctx: FakeContext, host: FakeHost, quick: None) -> None:
    logs_capture(ctx)
    assert "debug-keys.txt" not in ctx.saved
    ctx.failed, host.console.data = True, b"before "
    real = host.shell.script

    def script(text: str, *args: str, **more: object) -> object:
        if "debug-keys" in text:
            host.console.data += b"(XEN) 'd' pressed"
        return real(text, *args, **more)  # type: ignore[arg-type]

    host.shell.script = script  # type: ignore[method-assign,assignment]
    logs_capture(ctx)
    assert ctx.saved["debug-keys.txt"] == b"(XEN) 'd' pressed"
    assert "xenctx.txt" in ctx.saved


def test_when_dom0_does_not_answer_xen_is_asked_on_the_serial_console(
    ctx: FakeContext, host: FakeHost, quick: None
) -> None:
    host.shell.dead, host.console.data = True, b"(XEN) before"
    typed: list[bytes] = []

    def write(data: bytes) -> None:
        typed.append(data)
        host.console.data += b"(XEN) 'd' pressed"

    host.console.write = write  # type: ignore[attr-defined]
    ctx.runvars.set("host_xen_version", "4.17.5")
    with pytest.raises(HostDiedError):
        logs_capture(ctx)
    assert typed == [b"\x01\x01\x01dqregm"]
    assert ctx.saved["serial-console.txt"] == b"(XEN) before"
    assert ctx.saved["debug-keys.txt"] == b"(XEN) 'd' pressed"


# --- a host's examination


def test_an_examination_leaves_what_it_found_in_runvars(ctx: FakeContext, host: FakeHost) -> None:
    host.shell.answers |= {
        "xl info": "virt_caps : pv hvm\nnr_cpus : 1\n",
        "xl dmesg": "(XEN) I/O virtualisation enabled",
    }
    console = ScriptedConsole(answer=lambda typed: b"(XEN) *** Serial input to Xen (type 'CTRL-a' three times)\r\n")
    host.console = console  # type: ignore[assignment]
    examine(ctx)
    assert ctx.runvars.get("host_found_flags") == "hvm iommu pv serial-input"
    assert ctx.runvars.get("host_found_cpus") == "1"
    assert bytes(console.typed) == b"\x01" * 6, "the console is dom0's again"
    console.answer = lambda typed: b""
    examine(ctx)
    assert ctx.runvars.get("host_found_flags") == "hvm iommu pv"
