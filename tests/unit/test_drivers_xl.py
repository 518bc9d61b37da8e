"""xl.cfg is built so that a value stays a value; `xl list` is read as it is printed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import ConfigError
from lab.hosts.drivers.guest.xl import configuration, listed
from lab.hosts.protocols import GuestConfig, GuestDisk

GUEST = GuestConfig(name="g", kind="pv", memory_mib=128, kernel="/lab/k", ramdisk="/lab/r")


def test_a_guest_in_full() -> None:
    guest = replace(
        GUEST,
        kind="hvm",
        kernel_args=("console=hvc0", "lab.x=1"),
        vcpus=2,
        disks=(GuestDisk(path="/d/a.qcow2", format="qcow2"), GuestDisk(path="/d/b", format="raw", vdev="xvdb")),
        bridge="xenbr0",
        mac="00:16:3e:00:00:01",
        options={"seclabel": "system_u:system_r:domU_t", "altp2m": 1},
    )
    lines = configuration(guest).splitlines()
    assert 'type = "hvm"' in lines
    assert 'extra = "console=hvc0 lab.x=1"' in lines
    assert (
        'disk = [ "format=qcow2,vdev=xvda,access=rw,target=/d/a.qcow2", '
        '"format=raw,vdev=xvdb,access=rw,target=/d/b" ]' in lines
    )
    assert 'vif = [ "bridge=xenbr0,script=vif-lab,mac=00:16:3e:00:00:01,type=vif" ]' in lines
    assert 'seclabel = "system_u:system_r:domU_t"' in lines
    assert "altp2m = 1" in lines
    assert 'on_crash = "preserve"' in lines


def test_a_guest_without_a_console_argument_gets_one() -> None:
    assert 'extra = "console=hvc0 quiet"' in configuration(replace(GUEST, kernel_args=("quiet",)))


@pytest.mark.parametrize(
    "change",
    [
        {"name": 'g"\nmemory = 9'},
        {"name": ""},
        {"name": "-h"},
        {"name": "g" * 49},
        {"kind": "pv'"},
        {"kernel": "relative"},
        {"kernel": '/k"'},
        {"ramdisk": "/r\nx"},
        {"kernel_args": ('a"; b = "c',)},
        {"kernel_args": ("a\\",)},
        {"kernel_args": ("ä",)},
        {"memory_mib": 0},
        {"vcpus": -1},
        {"bridge": "br,script=/bin/sh"},
        {"bridge": "b", "mac": "00:16:3e:00:00:01,script=x"},
        {"disks": (GuestDisk(path="/d,x y", format="raw"),)},
        {"disks": (GuestDisk(path="/d", format="raw,access=r"),)},
        {"disks": (GuestDisk(path="/d", format="raw", vdev="xvda,x"),)},
        {"options": {"name": "x"}},
        {"options": {"disk": "x"}},
        {"options": {"a = 1\nb": 1}},
        {"options": {"device_model_override": 'x"'}},
    ],
)
def test_a_value_that_could_be_more_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        configuration(replace(GUEST, **change))  # type: ignore[arg-type]


@given(st.text(max_size=40))
def test_no_text_leaves_its_quotes(text: str) -> None:
    try:
        made = configuration(replace(GUEST, options={"serial": text}))
    except ConfigError:
        return
    last = made.splitlines()[-1]
    assert last == f'serial = "{text}"'
    assert not set(text) & set("\"'\\\n\r")


def test_a_list_of_domains_is_read() -> None:
    output = (
        "Name                                        ID   Mem VCPUs\tState\tTime(s)\n"
        "Domain-0                                     0  1024     1     r-----     149.4\n"
        "a guest with blanks                          3   128     1     -b----      97.0\n"
        "(null)                                       4     0     2     --ps-d       0.1\n"
        "nonsense\n"
    )
    guests = listed(output)
    assert [(guest.name, guest.domid, guest.state) for guest in guests] == [
        ("Domain-0", 0, "r"),
        ("a guest with blanks", 3, "b"),
        ("(null)", 4, "psd"),
    ]
    assert listed("") == []
