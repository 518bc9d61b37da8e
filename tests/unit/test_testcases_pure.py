"""What the test cases decide without a host: parsing, comparing, building a guest."""

from __future__ import annotations

import doctest
import importlib
import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import ConfigError, LabBug
from lab.flights.runvars import Runvars
from lab.flights.steps import GuestFiles
from lab.hosts.protocols import Heartbeat
from testcases import _leaks
from testcases._disks import MIB, file_offset, image_problem
from testcases._guests import continuity_problems, guest_address, guest_config, guest_mac
from testcases._leaks import Suppression, inventory, leaked, load_basis, parse_ps
from testcases._readings import marked_script, split_readings
from testcases._xl_output import banner_version, in_series, parse_xl_info, parse_xl_list, promised_version, xen_version
from testcases.disk_io import parse_sha256
from testcases.guest_migrate import downtime_ms
from testcases.host_ping import parse_ping
from testcases.logs_capture import file_name, split_files
from testcases.xen_boot import domain0_problem, memory_problem


@pytest.mark.parametrize("module", ["_xl_output", "_guests", "logs_capture", "guest_migrate", "guest_start"])
def test_the_examples_in_docstrings_are_true(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"testcases.{module}"))
    assert results.attempted
    assert not results.failed


# --- xl's output

XL_INFO = """\
host                   : emu0
release                : 6.1.0-50-amd64
total_memory           : 2047
free_memory            : 912
xen_major              : 4
xen_minor              : 17
xen_extra              : .5
xen_version            : 4.17.5
virt_caps              : pv hvm hap shadow
xen_commandline        : placeholder dom0_mem=1024M,max:1024M com1=115200,8n1
"""

XL_LIST = """\
Name                                        ID   Mem VCPUs	State	Time(s)
Domain-0                                     0  1024     1     r-----      12.3
guest--incoming                              4   128     1     -b----       0.7
a name with 1 2 3 blanks                    15  4096    16     --p---       0.0
(null)                                      16     0     1     --ps-d       1.5
"""


def test_the_version_of_xen_is_put_together_from_its_three_parts() -> None:
    info = parse_xl_info(XL_INFO)
    assert xen_version(info) == "4.17.5"
    assert info["xen_commandline"] == "placeholder dom0_mem=1024M,max:1024M com1=115200,8n1"


def test_no_version_is_made_up_when_xl_says_something_else() -> None:
    assert xen_version(parse_xl_info("ERROR: cannot open hypervisor: no such file")) is None


def test_xl_list_gives_all_domains_even_with_odd_names() -> None:
    domains = parse_xl_list(XL_LIST)
    assert [(domain.name, domain.domid, domain.state) for domain in domains] == [
        ("Domain-0", 0, "r-----"),
        ("guest--incoming", 4, "-b----"),
        ("a name with 1 2 3 blanks", 15, "--p---"),
        ("(null)", 16, "--ps-d"),
    ]


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    parse_xl_list(text), parse_xl_info(text), banner_version(text), parse_ping(text), parse_ps(text)
    load_basis("1.job", text.encode())
    image_problem(text, format_name="raw", size_mib=1)


@pytest.mark.parametrize(
    ("image", "series"),
    [("dom0-xen-4.17-amd64", "4.17"), ("dom0-xen-4.20", "4.20"), ("guest-tiny-amd64", None), ("", None)],
)
def test_an_image_promises_the_xen_in_its_name(image: str, series: str | None) -> None:
    assert promised_version(image) == series


def test_a_series_is_not_a_prefix() -> None:
    assert in_series("4.17.5", "4.17")
    assert in_series("4.20-rc1", "4.20")
    assert not in_series("4.170", "4.17")
    assert not in_series("4.2.0", "4.20")


def test_the_newest_banner_counts() -> None:
    log = "(XEN) Xen version 4.14.6 (Debian) x\n…\n(XEN) [  0.0] Xen version 4.17.5 (Debian 4.17.5-1) debug=n\n"
    assert banner_version(log) == "4.17.5"
    assert banner_version("Latest ChangeSet:") is None


def test_domain_0_must_be_there_and_run() -> None:
    domains = parse_xl_list(XL_LIST)
    assert domain0_problem(domains) is None
    assert "has not" in str(domain0_problem(domains[1:]))
    assert "'-b----'" in str(domain0_problem(parse_xl_list(XL_LIST.replace("r-----", "-b----"))))


def test_memory_must_add_up() -> None:
    domain0 = parse_xl_list(XL_LIST)[:1]
    assert memory_problem(parse_xl_info(XL_INFO), domain0) is None
    assert "only 2047 MiB" in str(memory_problem({"total_memory": "2047", "free_memory": "1500"}, domain0))
    assert memory_problem({}, domain0) is not None


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("20 packets transmitted, 20 received, 0% packet loss, time 3810ms", 0.0),
        ("20 packets transmitted, 19 packets received, 5% packet loss", 5.0),
        ("20 packets transmitted, 0 received, +20 errors, 100% packet loss", 100.0),
    ],
)
def test_ping_of_either_kind_is_understood(text: str, percent: float) -> None:
    loss = parse_ping(text)
    assert loss is not None
    assert loss.percent == percent


# --- many looks in one command


@given(st.dictionaries(st.sampled_from(["info", "list", "dmesg"]), st.tuples(st.text(), st.integers(0, 255))))
def test_each_reading_comes_back_as_it_was_said(said: dict[str, tuple[str, int]]) -> None:
    token = "0123456789abcdef"
    output = "".join(f"{text}\n@@{token} {name} {status}\n" for name, (text, status) in said.items())
    readings = split_readings(output + "the rest of a cut output", token)
    assert {name: (reading.output, reading.exit_status) for name, reading in readings.items()} == said


def test_the_marked_script_has_one_marker_for_each_command() -> None:
    script = marked_script({"info": "xl info", "list": "xl list"}, "t0ken")
    assert re.findall(r"@@t0ken (\w+)", script) == ["info", "list"]


@pytest.mark.parametrize("path", ["console/guest-a.log", "../../etc/passwd", "-", "ä b", "." * 300, "a/" * 200])
def test_a_kept_file_has_a_harmless_name(path: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", file_name(path))


def test_log_files_are_told_apart_even_when_their_names_become_one() -> None:
    output = "\n@@tok /var/log/xen/a b\none\n@@tok /var/log/xen/a-b\ntwo"
    assert list(split_files(output, "tok")) == [("a-b", "one"), ("a-b-", "two")]


# --- leaks

PS = """\
self 77
PID   PPID  COMMAND
    1     0 {init} /bin/sh /init
    2     0 [kthreadd]
   15     2 [kworker/0:1]
   30     1 xenconsoled --log=guest
   40     1 dropbear -s -R
   76    40 dropbear -s -R
   77    76 sh -c echo self $$; ps -o pid,ppid,args
   78    77 ps -o pid,ppid,args
"""


def test_processes_are_those_that_stay_without_the_kernel_and_the_onlooker() -> None:
    assert dict(parse_ps(PS)) == {1: "{init} /bin/sh /init", 30: "xenconsoled --log=guest"}


def test_an_inventory_has_only_processes_seen_twice() -> None:
    outputs = {
        "domain": XL_LIST,
        "process": PS + "   90     1 sleep 1\n   91     1 qemu a\n",
        "process-again": PS + "   91     1 qemu b\n",
        "xenstore": '/local = ""\n/local/domain = ""\nxenstore-ls: odd line\n',
        "loop": "/dev/loop0: [0005]:5 (/lab/scratch/guest.raw)\n",
        "nbd": "/sys/block/nbd3/pid\n",
        "interface": "1: lo: <UP> mtu 1\n4: vif1.0@if2: <UP> mtu 1500\\    link/ether fe:ff\n3: xenbr0: <UP>\n",
        "mount": "none / rootfs rw 0 0\n/dev/vda /lab/media ext4 ro 0 0\n",
        "event-channel": "   6: VCPU 0: Interdomain (Connected) - Remote Domain 0, Port 23\n"
        "  31: VCPU 0: Interdomain (Connected) - Remote Domain 3, Port 1\n",
        "memory": "total_memory           : 2047\nfree_memory            : 1384\n",
        "file": "/tmp\n/run/x y\n/tmp\n",
    }
    assert inventory(outputs) == {
        "domain": ("(null)", "a name with 1 2 3 blanks", "guest--incoming"),
        "process": ("xenconsoled --log=guest", "{init} /bin/sh /init"),
        "xenstore": ("/local", "/local/domain"),
        "loop": ("/dev/loop0: [0005]:5 (/lab/scratch/guest.raw)",),
        "nbd": ("nbd3",),
        "interface": ("lo", "vif1.0", "xenbr0"),
        "mount": ("/ rootfs", "/lab/media ext4"),
        "event-channel": ("Remote Domain 3",),
        "memory": ("1384",),
        "file": ("/run/x y", "/tmp"),
    }


_NAMES = st.sampled_from(["a", "b", "c/d", "dropbear -R", "/libxl", "xenconsoled"])
_INVENTORIES = st.dictionaries(
    st.sampled_from(["domain", "process", "xenstore", "file"]), st.lists(_NAMES, max_size=5).map(tuple)
)


@given(_INVENTORIES)
def test_a_host_on_which_nothing_changed_has_no_leak(seen: dict[str, tuple[str, ...]]) -> None:
    assert leaked(seen, seen) == ()


@given(_INVENTORIES, _INVENTORIES)
def test_what_went_away_is_no_leak(before: dict[str, tuple[str, ...]], more: dict[str, tuple[str, ...]]) -> None:
    richer = {kind: before.get(kind, ()) + more.get(kind, ()) for kind in {*before, *more}}
    assert leaked(richer, before) == ()


@given(_INVENTORIES, st.sampled_from(["domain", "process", "xenstore", "file"]))
def test_whatever_is_added_is_found_once(before: dict[str, tuple[str, ...]], kind: str) -> None:
    after = {**before, kind: (*before.get(kind, ()), "something new")}
    assert leaked(before, after) == ((kind, "something new"),)


def test_less_free_memory_is_a_leak_once_it_is_more_than_xen_keeps() -> None:
    assert leaked({"memory": ("1384",)}, {"memory": ("1376",)}) == ()
    assert leaked({"memory": ("1376",)}, {"memory": ("1384",)}) == ()
    [(kind, what)] = leaked({"memory": ("1384",)}, {"memory": ("1375",)})
    assert (kind, what) == ("memory", "9 MiB of Xen's memory (1375 are free, 1384 were)")
    assert leaked({}, {"memory": ("1",)}) == ()


@given(_INVENTORIES, _INVENTORIES, st.randoms())
def test_the_order_in_which_things_are_listed_does_not_matter(
    before: dict[str, tuple[str, ...]], after: dict[str, tuple[str, ...]], rng: random.Random
) -> None:
    shuffled = {kind: tuple(rng.sample(names, len(names))) for kind, names in after.items()}
    assert leaked(before, shuffled) == leaked(before, after)


def test_a_second_process_of_the_same_name_is_a_leak() -> None:
    assert leaked({"process": ("sleep 9",)}, {"process": ("sleep 9", "sleep 9")}) == (("process", "sleep 9"),)


def test_a_suppression_excuses_its_own_kind_and_the_whole_name_only() -> None:
    rules = (Suppression("file", r"/run/lock/.*", "test"),)
    after = {"file": ("/run/lock/a", "/tmp/run/lock/a"), "xenstore": ("/run/lock/a",)}
    assert leaked({}, after, rules) == (("file", "/tmp/run/lock/a"), ("xenstore", "/run/lock/a"))


def test_every_suppression_has_a_reason_and_a_pattern_that_does_not_excuse_everything() -> None:
    for rule in _leaks.SUPPRESSED:
        assert len(rule.reason) > 5
        assert not re.fullmatch(rule.pattern, "/local/domain/7/name")
        assert not re.fullmatch(rule.pattern, "/lab/scratch/guest.raw")
        assert not re.fullmatch(rule.pattern, "/usr/libexec/xen-qemu-system-i386 -xen-domid 7")


def test_a_basis_is_only_good_for_the_job_that_wrote_it() -> None:
    seen = {"file": ("/tmp/a",)}
    data = _leaks.dump_basis("7.test", seen)
    assert load_basis("7.test", data) == seen
    assert load_basis("8.test", data) is None
    assert load_basis("7.test", b"{") is None


# --- the guest


def _beat(seq: int, mono: float | None = None, *, ok: bool = True) -> Heartbeat:
    mono_s = 10.0 + seq if mono is None else mono
    return Heartbeat(seq=seq, wall_s=1000.0 + mono_s, mono_s=mono_s, maxgap_ms=60, memory_ok=ok)


@given(st.integers(0, 1000), st.integers(1, 60), st.randoms())
def test_a_count_without_a_hole_is_whole_in_whatever_order_the_logs_have_it(
    start: int, length: int, rng: random.Random
) -> None:
    beats = [_beat(seq) for seq in range(start, start + length)]
    logs = [*beats, *rng.sample(beats, rng.randint(0, length))]  # a migration may print some on both hosts
    rng.shuffle(logs)
    assert continuity_problems(logs, beats[0], beats[-1]) == ()


@given(st.integers(3, 60), st.data())
def test_a_lost_heartbeat_is_named(length: int, data: st.DataObject) -> None:
    beats = [_beat(seq) for seq in range(length)]
    lost = data.draw(st.integers(1, length - 2))
    problems = continuity_problems(beats[:lost] + beats[lost + 1 :], beats[0], beats[-1])
    assert problems == (f"heartbeat {lost} is missing",)


def test_a_clock_that_goes_back_is_seen() -> None:
    beats = [_beat(0), _beat(1), _beat(2, 10.5), _beat(3)]
    assert continuity_problems(beats, beats[0], beats[-1]) == (
        "the guest's clock went back from 11.0 to 10.5 s at heartbeat 2",
    )
    assert "went back from 15.0 to 11.0" in continuity_problems([], _beat(5), _beat(6, 11.0))[0]


def test_damaged_memory_is_seen() -> None:
    beats = [_beat(0), _beat(1, ok=False), _beat(2)]
    assert continuity_problems(beats, beats[0], beats[-1]) == ("the memory was damaged at heartbeat 1",)


def test_a_guest_is_built_from_runvars() -> None:
    runvars = Runvars({"guest_kind": "pvh", "guest_memory": "256", "disk_path": "/x.qcow2", "disk_format": "qcow2"})
    config = guest_config(runvars, GuestFiles(kernel="/k", ramdisk="/r"), job="1.t", host_address="192.168.77.3")
    assert (config.kind, config.memory_mib, config.vcpus) == ("pvh", 256, 1)
    assert config.kernel_args[-2:] == ("lab.mem=16", "lab.ip=192.168.77.203/24")
    assert "console=hvc0" in config.kernel_args
    assert [(disk.path, disk.format, disk.vdev) for disk in config.disks] == [("/x.qcow2", "qcow2", "xvda")]


def test_a_guest_has_a_disk_only_when_one_was_created() -> None:
    runvars = Runvars({"guest_kind": "pv", "disk_format": "raw"})
    config = guest_config(runvars, GuestFiles(kernel="/k", ramdisk="/r"), job="1.t", host_address="10.0.0.1")
    assert config.disks == ()


@pytest.mark.parametrize(("name", "value"), [("guest_kind", "vm"), ("guest_memory", "0"), ("guest_vcpus", "many")])
def test_a_guest_that_cannot_be_is_refused(name: str, value: str) -> None:
    runvars = Runvars({"guest_kind": "pv", name: value})
    with pytest.raises(ConfigError, match=name):
        guest_config(runvars, GuestFiles(kernel="/k", ramdisk="/r"), job="1.t", host_address="10.0.0.1")


@given(st.integers(1, 200))
def test_a_guest_never_has_a_hosts_address(number: int) -> None:
    assert 201 <= int(guest_address(f"192.168.77.{number}").rpartition(".")[2]) <= 254


def test_only_an_ipv4_address_has_guests() -> None:
    with pytest.raises(LabBug):
        guest_address("fe80::1")


@given(st.text())
def test_a_mac_address_is_one_of_xens(job: str) -> None:
    assert re.fullmatch(r"00:16:3e:[0-7][0-9a-f](:[0-9a-f]{2}){2}", guest_mac(job))


# --- disks


def test_an_image_has_to_be_what_was_asked_for() -> None:
    info = json.dumps({"format": "qcow2", "virtual-size": 32 * MIB})
    assert image_problem(info, format_name="qcow2", size_mib=32) is None
    assert "format should be raw" in str(image_problem(info, format_name="raw", size_mib=32))
    assert "size should be" in str(image_problem(info, format_name="qcow2", size_mib=64))


def test_a_vhd_may_be_a_little_larger_but_not_smaller() -> None:
    def vhd(size: int) -> str:
        return json.dumps({"format": "vpc", "virtual-size": size})

    assert image_problem(vhd(32 * MIB + 139264), format_name="vhd", size_mib=32) is None
    assert image_problem(vhd(32 * MIB - 512), format_name="vhd", size_mib=32) is not None


def test_a_byte_of_the_guests_disk_is_found_in_the_image() -> None:
    extents = json.dumps(
        [
            {"start": 0, "length": 65536, "data": True, "offset": 327680},
            {"start": 65536, "length": 65536, "data": False, "zero": True},
        ]
    )
    assert file_offset(extents, 100) == 327780
    assert file_offset(extents, 65537) is None
    assert file_offset(extents, 1 << 30) is None


@pytest.mark.parametrize(
    ("lines", "good"),
    [(["f" * 64 + "  -"], True), (["noise", "0" * 64], True), (["F" * 64 + "  -"], False), ([""], False), ([], False)],
)
def test_a_checksum_is_64_digits(lines: list[str], good: bool) -> None:
    assert (parse_sha256(lines) is not None) is good


@given(st.integers(0, 5000), st.floats(-1.0, 1.0))
def test_the_difference_between_two_clocks_is_no_downtime(still_ms: int, target_ahead_s: float) -> None:
    seen = round(still_ms + target_ahead_s * 1000)
    assert abs(downtime_ms(seen, target_ahead_s=target_ahead_s) - still_ms) <= 1
