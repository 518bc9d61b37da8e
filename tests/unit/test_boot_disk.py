"""The disk an HVM guest boots from: its layout, and the real thing made with GRUB."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import ConfigError, InfraError
from lab.flights.boot_disk import (
    ARGUMENTS_AT,
    ARGUMENTS_SECTORS,
    MIB,
    SECTOR,
    Partition,
    arguments_area,
    boot_sector,
    core_image,
    partition_table,
    partitions,
)
from lab.image_boot_disk import DATA_MIB, GRUB_FOLDER, make_boot_disk

BOOT_CODE = b"\xeb\x63" + bytes(range(256)) + bytes(252) + b"\x55\xaa"


def test_the_partitions_lie_behind_each_other_and_fill_the_disk() -> None:
    system, data = partitions(system_mib=14, disk_mib=31)
    assert (system.start_mib, system.size_mib, system.bootable) == (1, 14, True)
    assert (data.start_mib, data.size_mib, data.bootable) == (15, 16, False)


def test_a_disk_without_room_for_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="no room for data"):
        partitions(system_mib=14, disk_mib=15)


@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000), st.booleans()), max_size=4))
def test_a_partition_table_is_read_as_it_was_written(table: list[tuple[int, int, bool]]) -> None:
    written = tuple(Partition(start_mib=at, size_mib=size, bootable=active) for at, size, active in table)
    sector = boot_sector(BOOT_CODE, written)
    assert len(sector) == SECTOR
    assert sector[:446] == BOOT_CODE[:446]
    assert partition_table(sector) == written


@given(st.binary(max_size=600))
def test_no_bytes_break_the_reading_of_a_partition_table(sector: bytes) -> None:
    assert len(partition_table(sector)) <= 4


@pytest.mark.parametrize("code", [b"", bytes(512), BOOT_CODE[:-1]])
def test_what_is_no_boot_sector_is_refused(code: bytes) -> None:
    with pytest.raises(ConfigError, match="boot sector"):
        boot_sector(code, ())


def test_a_core_image_must_not_reach_the_arguments() -> None:
    most = (ARGUMENTS_AT - 1) * SECTOR
    assert core_image(bytes(most)) == bytes(most)
    with pytest.raises(ConfigError, match="does not fit"):
        core_image(bytes(most + 1))


def test_the_arguments_are_one_line_for_grub_in_whole_sectors() -> None:
    area = arguments_area(["console=hvc0", "lab.ip=192.168.77.201/24"])
    assert len(area) == ARGUMENTS_SECTORS * SECTOR
    assert area.rstrip(b"\n") == b"linux (hd0,msdos1)/vmlinuz console=hvc0 lab.ip=192.168.77.201/24"


@pytest.mark.parametrize("word", ["", "a b", 'a"b', "$x", "a\nboot", "a;b", "\\", "ü"])
def test_an_argument_that_grub_could_read_as_more_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="boot argument"):
        arguments_area(["console=hvc0", word])


def test_more_arguments_than_there_is_room_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than"):
        arguments_area(["x" * 100] * 50)


def test_without_grub_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.image_boot_disk.GRUB_FOLDER", tmp_path)
    monkeypatch.setattr("lab.image_boot_disk.need_tools", lambda *_: None)
    with pytest.raises(InfraError) as caught:
        make_boot_disk(b"", b"", tmp_path / "disk.raw")
    assert caught.value.hint == "apt install grub-pc-bin"


@pytest.mark.skipif(
    not ((GRUB_FOLDER / "boot.img").exists() and shutil.which("grub-mkimage")), reason="GRUB is not installed"
)
def test_a_boot_disk_has_grub_the_files_and_room_for_data(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    make_boot_disk(b"K" * 3 * MIB, b"I" * 1000, disk)
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]
    data = disk.read_bytes()
    system, free = partition_table(data[:SECTOR])
    assert len(data) == (free.start_mib + free.size_mib) * MIB
    assert free.size_mib == DATA_MIB
    core_sectors = int.from_bytes(data[SECTOR + 508 : SECTOR + 510], "little") + 1  # by its own first sector
    assert any(data[core_sectors * SECTOR : (core_sectors + 1) * SECTOR])
    assert not any(data[(core_sectors + 1) * SECTOR : ARGUMENTS_AT * SECTOR])
    assert data[ARGUMENTS_AT * SECTOR :].startswith(b"linux (hd0,msdos1)/vmlinuz \n")
    file_system = data[system.start_mib * MIB : free.start_mib * MIB]
    assert file_system[1080:1082] == b"\x53\xef"  # ext2
    assert b"K" * 4096 in file_system
    assert not any(data[free.start_mib * MIB :])
