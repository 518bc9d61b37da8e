"""What an examined host is, and what its entry in the lab's file should say."""

from __future__ import annotations

from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from lab.hosts.examination import FLAGS, Findings, findings, proposal, read, written
from lab.hosts.model import Host

INFO = {"virt_caps": "pv hvm hap shadow gnttab-v1", "nr_cpus": "2", "total_memory": "2047", "xen_scheduler": "credit2"}
LOG = """\
(XEN) CPU Vendor: AMD, Family 15 (0xf), Model 107 (0x6b), Stepping 1 (raw 00060fb1)
(XEN)   Compiled-in support: INDIRECT_THUNK SHADOW_PAGING
(XEN) I/O virtualisation disabled
"""
CPUINFO = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: QEMU\n"
FOUND = findings(INFO, LOG, CPUINFO, boot_s="9.9", serial_input=True)


def test_a_hosts_flags_and_properties_are_what_it_showed() -> None:
    assert FOUND.flags == {"pv", "hvm", "hap", "shadow", "smp", "serial-input"}
    assert FOUND.properties == {
        "cpus": "2",
        "memory_mib": "2047",
        "cpu_vendor": "AuthenticAMD",
        "cpu_family": "15",
        "scheduler": "credit2",
        "xen_features": "indirect_thunk shadow_paging",
        "boot_s": "9.9",
    }


def test_what_is_not_told_is_left_out() -> None:
    assert findings({}, "", "") == Findings(flags=frozenset(), properties=MappingProxyType({}))
    arm = findings({"nr_cpus": "1"}, "(XEN) I/O virtualisation enabled\n", "CPU implementer\t: 0x41\n")
    assert arm.flags == {"iommu"}
    assert arm.properties["cpu_vendor"] == "0x41"


def test_a_proposal_names_what_is_missing_and_what_is_wrong_and_nothing_else() -> None:
    host = Host(
        name="emu0",
        arch="x86_64",
        flags=FOUND.flags - {"smp"} | {"iommu", "equiv-emulated"},
        properties={**FOUND.properties, "memory_mib": 4096, "cpus": 2, "rack": "b7"},
    )
    assert proposal(host, FOUND) == (
        "flag smp: found, but not configured",
        "flag iommu: configured, but not found",
        "property memory_mib: configured as 4096, but 2047 was found",
    )
    assert proposal(Host(name="emu0", arch="x86_64", flags=FOUND.flags, properties=FOUND.properties), FOUND) == ()


@given(
    st.frozensets(st.sampled_from(sorted(FLAGS))),
    st.dictionaries(st.sampled_from(["cpus", "cpu_vendor"]), st.text("abc12 ", min_size=1)),
)
def test_findings_survive_as_runvars_of_their_role(flags: frozenset[str], properties: dict[str, str]) -> None:
    found = Findings(flags=flags, properties=properties)
    runvars = {f"src_host_{name}": value for name, value in written(found).items()}
    assert read("src_host", runvars | {"dst_host_found_cpus": "9", "arch": "amd64"}) == found
    assert read("dst_host", {}) == Findings()
