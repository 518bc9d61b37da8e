"""Reading lab.toml: what is understood, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import ConfigError
from lab.hosts.slots import Limit
from lab.labfile import SchedulerSettings, load_lab_file

GOOD = """
[lab]
name = "here"
[[host]]
name = "emu0"
arch = "x86_64"
flags = ["hvm"]
properties = { cores = 4 }
[host.driver]
method = "qemu"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "lab.toml"
    path.write_text(text)
    return path


def test_a_good_file_gives_its_hosts(tmp_path: Path) -> None:
    lab = load_lab_file(written(tmp_path, GOOD))
    (host,) = lab.hosts()
    assert (host.name, host.arch, host.flags, host.properties["cores"]) == ("emu0", "x86_64", {"hvm"}, 4)
    assert lab.index_of("emu0") == 1
    assert lab.settings("emu0").driver.lan == "default"


def test_hosts_have_sites_and_builds_run_in_the_first_one_unless_another_is_named(tmp_path: Path) -> None:
    assert load_lab_file(written(tmp_path, GOOD)).sites() == ("default",)
    two = GOOD.replace('arch =', 'site = "north"\narch =') + HOST % ("emu1", "")
    lab = load_lab_file(written(tmp_path, two))
    assert [host.site for host in lab.hosts()] == ["north", "default"]
    assert (lab.build_site(), lab.sites()) == ("north", ("default", "north"))
    lab = load_lab_file(written(tmp_path, two.replace("[lab]", '[lab]\nbuild_site = "far"')))
    assert (lab.build_site(), lab.sites()) == ("far", ("default", "far", "north"))


def test_the_file_in_the_repository_is_good() -> None:
    lab = load_lab_file(Path(__file__).parents[2] / "lab.toml")
    assert [host.name for host in lab.hosts()] == ["emu0", "emu1", "emu2", "emu3"]
    assert [lab.index_of(host.name) for host in lab.hosts()] == [1, 2, 3, 4]
    assert lab.limit() == Limit(hosts=frozenset({"emu0", "emu1", "emu2", "emu3"}), running=2)


HOST = '\n[[host]]\nname = "%s"\narch = "x86_64"\n[host.driver]\nmethod = "qemu"\n%s\n'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[lab\n", ["line 1"]),
        ('[lab]\nname = "x"\ncolour = 1\n', ["lab.colour", "no such setting"]),
        (GOOD.replace("flags", "flgs"), ["host emu0: flgs", "no such setting"]),
        (GOOD.replace('"emu0"', '"Emu 0"'), ["host Emu 0: name", "a-z"]),
        (GOOD.replace("arch =", 'site = "A B"\narch ='), ["host emu0: site", "'A B'", "a-z"]),
        (GOOD.replace("x86_64", "vax"), ["host emu0: arch", "'x86_64' or 'arm64'"]),
        (GOOD.replace('"qemu"', '"smoke-signals"'), ["host emu0: driver.method", "smoke-signals", "qemu"]),
        (GOOD + "memory_mb = 3\n", ["host emu0: driver.memory_mb", "no such setting"]),
        (GOOD + 'memory_mib = "much"\n', ["host emu0: driver.memory_mib", "integer"]),
        (GOOD + "memory_mib = 1024\ndom0_memory_mib = 1024\n", ["host emu0: driver", "128 MiB"]),
        (GOOD + HOST % ("emu0", ""), ["emu0 is used twice"]),
        (GOOD.replace("x86_64", "arm64") + 'accel = "kvm"', ["host emu0", "cannot use KVM"]),
        (GOOD.replace("x86_64", "arm64") + "cpus = 9", ["host emu0", "at most 8 processors"]),
        (GOOD + HOST % ("emu1", "index = 1"), ["driver.index 1 is used twice"]),
        (GOOD.replace('[lab]\nname = "here"', ""), ["lab: is missing"]),
        (GOOD.replace('name = "emu0"\n', ""), ["host number 1: name: is missing"]),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_lab_file(path)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    for part in parts:
        assert part in line


def test_a_missing_file_and_one_that_is_not_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_lab_file(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_lab_file(tmp_path / "binary.toml")


def test_an_unknown_host_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="emu0"):
        load_lab_file(written(tmp_path, GOOD)).settings("emu7")


def test_a_lab_may_limit_how_many_of_its_emulated_hosts_run(tmp_path: Path) -> None:
    assert load_lab_file(written(tmp_path, GOOD)).limit() is None
    limited = GOOD.replace('name = "here"', 'name = "here"\nemulated_at_once = %d')
    assert load_lab_file(written(tmp_path, limited % 2)).limit() == Limit(hosts=frozenset({"emu0"}), running=2)
    with pytest.raises(ConfigError, match=r"lab\.emulated_at_once"):
        load_lab_file(written(tmp_path, limited % 0))


def test_how_tenants_share_the_hosts_is_read_and_has_defaults(tmp_path: Path) -> None:
    assert load_lab_file(written(tmp_path, GOOD)).scheduler == SchedulerSettings()
    text = GOOD.replace("[[host]]", '[scheduler]\nusage_half_life_h = 6\nshares = { arm = 2, "a b@c" = 0.5 }\n[[host]]')
    read = load_lab_file(written(tmp_path, text)).scheduler
    assert (read.usage_half_life_h, read.shares) == (6.0, {"arm": 2.0, "a b@c": 0.5})


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("half_life = 3", ["scheduler.half_life", "no such setting"]),
        ("usage_half_life_h = 0", ["scheduler.usage_half_life_h", "greater than 0"]),
        ('usage_half_life_h = "1 day"', ["scheduler.usage_half_life_h", "number"]),
        ("shares = { arm = 0 }", ["scheduler.shares.arm", "greater than 0"]),
        ("shares = { arm = nan }", ["scheduler.shares.arm", "less than or equal"]),
        ("default_duration_p90_s = 1", ["default_duration_p90_s is less than default_duration_s"]),
    ],
)
def test_a_mistake_in_the_scheduler_table_is_told(tmp_path: Path, line: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_lab_file(written(tmp_path, GOOD.replace("[[host]]", f"[scheduler]\n{line}\n[[host]]")))
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_how_bisections_are_made_is_told_and_checked(tmp_path: Path) -> None:
    given = load_lab_file(written(tmp_path, f'{GOOD}\n[bisection]\nconfidence = 0.95\nhosts = "same"\n')).bisection
    assert (given.confidence, given.hosts, given.at_once, given.revert) == (0.95, "same", 2, True)
    for wrong in ("confidence = 1", 'hosts = "mine"', "at_once = 0", "sure = 1"):
        with pytest.raises(ConfigError, match=r"bisection\."):
            load_lab_file(written(tmp_path, f"{GOOD}\n[bisection]\n{wrong}\n"))
