"""What a build is made of, and what its log says: pure decisions."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.builds import build_id, file_inside, files_inside, tools_entries, write_inside
from lab.errors import ConfigError, StepFailure
from lab.flights.builds import (
    BuildRequest,
    build_key,
    build_request,
    builder_for,
    compiler_error,
    kconfig,
    xen_version,
)
from lab.flights.runvars import Runvars
from lab.image_tree import Tree

LOG = """\
make[3]: Entering directory '/tmp/build/xen'
  CC      common/page_alloc.o
common/page_alloc.c: In function 'free_domheap_pages':
common/page_alloc.c:2401:5: error: unknown type name 'bol'; did you mean 'bool'?
 2401 |     bol drop_dom_ref;
      |     ^~~
      |     bool
common/page_alloc.c:2410:1: error: a second one
make[4]: *** [Rules.mk:245: common/page_alloc.o] Error 1
make[3]: *** [Rules.mk:294: common/built_in.o] Error 2
"""


def test_the_compilers_first_error_is_the_reason_and_the_lines_around_it_the_evidence() -> None:
    reason, around = compiler_error(LOG)
    assert reason == "common/page_alloc.c:2401:5: error: unknown type name 'bol'; did you mean 'bool'?"
    assert "In function 'free_domheap_pages'" in around
    assert "^~~" in around


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("ld: common/domain.o: in function `f':\ndomain.c:7: undefined reference to `g'\nmake: *** [x] Error 1\n",
         "domain.c:7: undefined reference to `g'"),
        ("checking for yajl... no\nconfigure: error: Could not find yajl\n", "configure: error: Could not find yajl"),
        ("make: *** No rule to make target 'olddefconfig'.  Stop.\n",
         "make: *** No rule to make target 'olddefconfig'.  Stop."),
        ("x\nmake[1]: *** [Makefile:3: all] Error 127\n", "make[1]: *** [Makefile:3: all] Error 127"),
        ("\x1b[1mfoo.c:1:1: \x1b[31mfatal error: \x1b[0mx.h: No such file\n",
         "foo.c:1:1: fatal error: x.h: No such file"),
        ("Killed\n", "Killed"),
        ("", "it printed nothing"),
    ],
)  # fmt: skip
def test_other_ways_to_fail_are_named_too(log: str, reason: str) -> None:
    assert compiler_error(log)[0] == reason


def test_a_request_comes_out_of_the_runvars() -> None:
    request = build_request(Runvars({"revision": "master", "xen_config": "xsm"}))
    assert request == BuildRequest(tree="xen", revision="master", arch="amd64", config="xsm")
    with pytest.raises(ConfigError, match="no runvar 'revision'"):
        build_request(Runvars({}))


def test_xsm_is_the_default_configuration_and_more() -> None:
    default, xsm = kconfig("default", "amd64").splitlines(), kconfig("xsm", "amd64").splitlines()
    assert "CONFIG_SHADOW_PAGING=y" in default
    assert not [line for line in default if "XSM" in line]
    assert set(default) < set(xsm)
    assert "CONFIG_XSM_FLASK=y" in xsm
    assert not [line for line in kconfig("xsm", "arm64").splitlines() if "SHADOW" in line or "SHIM" in line]


def test_the_version_of_a_tree_decides_what_compiles_it() -> None:
    makefile = "export XEN_VERSION       = 4\nexport XEN_SUBVERSION    = 17\nexport XEN_EXTRAVERSION ?= .5\n"
    assert xen_version(makefile) == "4.17"
    assert builder_for("4.14") == "builder-bullseye-amd64"
    assert builder_for("4.17") == "builder-bookworm-amd64"
    assert builder_for("4.20") == builder_for("4.22") == "builder-trixie-amd64"
    with pytest.raises(ConfigError, match="no version"):
        xen_version("all:\n\techo linux\n")


def test_a_key_follows_everything_that_makes_a_build() -> None:
    facts = {"commit": "c0ffee", "arch": "amd64", "builder": "b", "fragment": "x"}
    key = build_key("hypervisor", facts)
    assert key == build_key("hypervisor", dict(reversed(facts.items())))
    others = [build_key("tools", facts), *(build_key("hypervisor", {**facts, name: "other"}) for name in facts)]
    assert len({key, *others}) == len(others) + 1


def test_the_build_id_is_read_from_the_elf_note() -> None:
    note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0" + bytes(range(20))
    assert build_id(b"\x7fELF" + b"\0" * 60 + note + b"tail") == bytes(range(20)).hex()
    assert build_id(b"\x7fELF no note") == ""


def test_what_a_build_left_is_never_read_or_written_through_a_link_that_leads_out(tmp_path: Path) -> None:
    secret, source = tmp_path / "secret", tmp_path / "source"
    secret.mkdir()
    (secret / "key").write_text("mine")
    (source / "real").mkdir(parents=True)
    (source / "real/xen").write_text("elf")
    (source / "xen").symlink_to(secret)
    (source / "real/policy").symlink_to(secret / "key")
    (source / "real/.config").symlink_to(secret / "key")
    assert file_inside(source, "real/xen").read_text() == "elf"
    for path in ("xen/key", "real/policy", "real/nothing", "real"):
        with pytest.raises(StepFailure, match="left no file"):
            file_inside(source, path)
    assert [path.name for path in files_inside(source, "real/*")] == ["xen"]
    with pytest.raises(StepFailure, match="is a link"):
        write_inside(source, "xen/.config", "x")
    write_inside(source, "real/.config", "x")
    assert (source / "real/.config").read_text() == "x"
    assert (secret / "key").read_text() == "mine"


def test_a_toolstack_becomes_an_overlay_in_the_merged_layout(tmp_path: Path) -> None:
    installed = tmp_path / "dist"
    for path in ("usr/sbin/xl", "usr/libexec/xen/bin/xen-init-dom0", "usr/include/xen.h", "usr/lib/libx.a"):
        (installed / path).parent.mkdir(parents=True, exist_ok=True)
        (installed / path).write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 57)
    (installed / "usr/sbin/xenstored").symlink_to("../libexec/xen/bin/xenstored")
    entries = tools_entries(installed, Tree(tmp_path, "amd64"))
    assert set(entries) == {
        "/usr/bin/xl", "/usr/bin/xenstored", "/usr/libexec/xen/bin/xen-init-dom0", "/usr/bin/xen-init-dom0",
    }  # fmt: skip
    assert entries["/usr/bin/xen-init-dom0"].data == b"/usr/libexec/xen/bin/xen-init-dom0"
