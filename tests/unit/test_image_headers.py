"""Images that tell the truth are accepted as what they are; those that lie are refused with a word that says how."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from disk_images import dynamic_vhd, extension, fixed_vhd, footer, qcow2
from hypothesis import given
from hypothesis import strategies as st

from lab.flights.image_headers import (
    FOOTER_BYTES,
    HEAD_BYTES,
    ImageBytes,
    ImageHeader,
    Refusal,
    judge_image,
)

MIB = 1 << 20


def image(data: bytes) -> ImageBytes:
    return ImageBytes(head=data[:HEAD_BYTES], tail=data[-FOOTER_BYTES:], size=len(data))


def refusal(data: bytes, declared: str) -> str:
    verdict = judge_image(image(data), declared)
    assert isinstance(verdict, Refusal), verdict
    return verdict.reason


# --- the truth


def test_a_plain_image_of_each_format_is_accepted() -> None:
    assert judge_image(image(bytes(4096)), "raw") == ImageHeader(format="raw", size=4096)
    for version in (2, 3):
        header_length = 104 if version == 3 else 72
        data = qcow2(version=version, header_length=header_length)
        assert judge_image(image(data), "qcow2") == ImageHeader(format="qcow2", size=16 * MIB)
    assert judge_image(image(dynamic_vhd(blocks=(4,))), "vhd") == ImageHeader(
        format="vhd", size=16 * MIB, subformat="dynamic"
    )
    assert judge_image(image(fixed_vhd(bytes(MIB))), "vhd") == ImageHeader(format="vhd", size=MIB, subformat="fixed")


def test_what_stands_below_an_image_and_its_snapshots_are_told() -> None:
    verdict = judge_image(image(qcow2(backing=b"base.raw", backing_format=b"raw", snapshots=2)), "qcow2")
    assert verdict == ImageHeader(
        format="qcow2", size=16 * MIB, backing_file="base.raw", backing_format="raw", snapshots=2
    )


needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


def qemu_img(*args: str, folder: Path) -> None:
    subprocess.run(["qemu-img", *args], check=True, cwd=folder, capture_output=True)


@needs_qemu_img
@pytest.mark.parametrize(
    ("declared", "options", "subformat"),
    [
        ("raw", ["-f", "raw"], ""),
        ("qcow2", ["-f", "qcow2"], ""),
        ("qcow2", ["-f", "qcow2", "-o", "compat=0.10"], ""),
        ("qcow2", ["-f", "qcow2", "-o", "cluster_size=4k,extended_l2=off"], ""),
        ("qcow2", ["-f", "qcow2", "-o", "cluster_size=128k,extended_l2=on"], ""),
        ("vhd", ["-f", "vpc", "-o", "subformat=dynamic"], "dynamic"),
        ("vhd", ["-f", "vpc", "-o", "subformat=fixed"], "fixed"),
    ],
)
def test_what_qemu_img_makes_is_accepted(tmp_path: Path, declared: str, options: list[str], subformat: str) -> None:
    qemu_img("create", *options, "x", "16M", folder=tmp_path)
    qemu_img("bench", "-w", "-c", "40", "-d", "1", "-f", options[1], "-S", "400k", "-s", "64k", "x", folder=tmp_path)
    verdict = judge_image(image((tmp_path / "x").read_bytes()), declared)
    assert isinstance(verdict, ImageHeader), verdict
    assert verdict.subformat == subformat
    assert 16 * MIB <= verdict.size <= 17 * MIB


@needs_qemu_img
def test_backing_file_and_snapshot_of_qemu_img_are_read(tmp_path: Path) -> None:
    qemu_img("create", "-f", "raw", "base", "16M", folder=tmp_path)
    qemu_img("create", "-f", "qcow2", "-b", "base", "-F", "raw", "x", folder=tmp_path)
    qemu_img("snapshot", "-c", "first", "x", folder=tmp_path)
    verdict = judge_image(image((tmp_path / "x").read_bytes()), "qcow2")
    assert verdict == ImageHeader(format="qcow2", size=16 * MIB, backing_file="base", backing_format="raw", snapshots=1)


@needs_qemu_img
def test_external_data_and_encryption_of_qemu_img_are_refused(tmp_path: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-o", "data_file=data.raw", "x", "16M", folder=tmp_path)
    assert "another file" in refusal((tmp_path / "x").read_bytes(), "qcow2")
    secret = ("--object", "secret,id=s,data=x")
    options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    qemu_img("create", *secret, "-f", "qcow2", "-o", options, "y", "16M", folder=tmp_path)
    assert "encrypted" in refusal((tmp_path / "y").read_bytes(), "qcow2")


# --- lies


@pytest.mark.parametrize("declared", ["raw", "vhd", "vmdk"])
def test_a_qcow2_is_nothing_else(declared: str) -> None:
    assert refusal(qcow2(), declared)


def test_a_raw_disk_into_which_a_guest_wrote_a_header_is_refused() -> None:
    disk = qcow2(backing=b"/etc/passwd").ljust(16 * MIB, b"\0")
    assert refusal(disk, "raw") == "it is declared as raw, but begins like qcow2"
    assert "begins like qcow2" in refusal(fixed_vhd(disk), "vhd")


@pytest.mark.parametrize(
    "name",
    [
        b"/etc/passwd", b"../secret", b"a/../../b", b"folder/base.raw", b"", b".", b"..", b"-base",
        b"json:{\"driver\":\"file\"}", b"nbd:127.0.0.1:10809", b"http://10.0.0.1/x", b"file:base.raw", b"base.raw\0",
        b"fat:rw:/etc", b"\xff\xfe", b"base raw", b"base.raw\n",
    ],
)  # fmt: skip
def test_a_backing_file_that_is_not_a_plain_name_beside_the_image_is_refused(name: bytes) -> None:
    if name:
        reason = refusal(qcow2(backing=name, backing_format=b"raw"), "qcow2")
        assert "not a plain name" in reason
        assert "\n" not in reason


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"version": 4}, "version 4"),
        ({"cluster_bits": 40}, "2^40"),
        ({"size": 0}, "size 0"),
        ({"size": 1 << 62}, "absurd"),
        ({"size": 1000}, "absurd"),
        ({"crypt": 1}, "encrypted"),
        ({"l1_size": 1 << 30}, "first table"),
        ({"l1_size": 0}, "first table"),
        ({"l1_at": 1 << 40}, "first table lies outside"),
        ({"l1_at": 100}, "first table lies outside"),
        ({"refcount_clusters": 1 << 20}, "reference counts"),
        ({"snapshots": 65536}, "65536 snapshots"),
        ({"snapshots": 1, "snapshots_at": 1 << 40}, "snapshot table lies outside"),
        ({"features": 1 << 1}, "corrupt"),
        ({"features": 1 << 2}, "another file"),
        ({"features": 1 << 40}, "unknown features"),
        ({"header_length": 1 << 20}, "absurd"),
        ({"extensions": extension(0x44415441, b"/etc/passwd")}, "another file, '/etc/passwd'"),
        ({"extensions": struct.pack(">II", 5, 1 << 30)}, "longer than the header"),
        ({"extensions": extension(5, b"x") * 2}, "twice"),
        ({"backing": b"base", "backing_format": None}, "does not say the format"),
        ({"backing": b"base", "backing_format": b"vmdk"}, "'vmdk'"),
        ({"backing": b"base", "backing_at": 1 << 40}, "outside its header"),
        ({"backing": b"base", "backing_at": 8}, "outside its header"),
        ({"backing": b"b" * 2000}, "outside its header"),
    ],
)
def test_a_qcow2_header_that_lies_is_refused(lie: dict[str, int | bytes | None], reason: str) -> None:
    data = qcow2(**{"header_length": 104, **lie})  # type: ignore[arg-type]
    assert reason in refusal(data, "qcow2")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytes(4096), "does not end like one"),
        (fixed_vhd(bytes(MIB))[:-1], "does not end like one"),
        (fixed_vhd(bytes(MIB))[512:], "does not fit"),
        (dynamic_vhd(kind=4, parent="/etc/passwd".encode("utf-16-be")), "difference to another file, '/etc/passwd'"),
        (dynamic_vhd(locator=b"W2ku"), "names a parent"),
        (dynamic_vhd(kind=7), "kind 7"),
        (dynamic_vhd(block=3), "blocks of 3 bytes"),
        (dynamic_vhd(entries=1), "do not hold"),
        (dynamic_vhd(table_at=1 << 40), "table of blocks lies outside"),
        (dynamic_vhd(blocks=(4, 5)), "overlap"),
        (dynamic_vhd(blocks=(9000,)), "outside the file"),
        (dynamic_vhd(blocks=(1,)), "outside the file"),
        (b"x" * 512 + dynamic_vhd(), "copy of its footer"),
        (footer(data_at=100), "no header at 100"),
        (footer(version=0x20000), "version 0x20000"),
        (footer(size=0), "size 0"),
    ],
)
def test_a_vhd_that_lies_is_refused(data: bytes, reason: str) -> None:
    assert reason in refusal(data, "vhd")


def test_a_changed_byte_of_a_vhds_footer_or_header_is_noticed() -> None:
    good = dynamic_vhd()
    for at in (48, 60, 512 + 20, 512 + 700, len(good) - 500):
        assert refusal(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], "vhd")


# --- whatever comes


@given(st.binary(max_size=3000), st.sampled_from(["raw", "qcow2", "vhd"]))
def test_any_bytes_get_a_verdict(data: bytes, declared: str) -> None:
    assert isinstance(judge_image(image(data), declared), ImageHeader | Refusal)


@given(
    st.sampled_from([(qcow2(backing=b"base", snapshots=1), "qcow2"), (dynamic_vhd(blocks=(4,)), "vhd")]),
    st.lists(st.tuples(st.integers(0, 1600), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_however_a_header_is_changed_what_is_accepted_stays_in_its_folder(
    original: tuple[bytes, str], changes: list[tuple[int, int]]
) -> None:
    data, declared = bytearray(original[0]), original[1]
    for at, value in changes:
        data[at] = value
    verdict = judge_image(image(bytes(data)), declared)
    if isinstance(verdict, ImageHeader):
        assert verdict.format == declared
        assert "/" not in verdict.backing_file
        assert ":" not in verdict.backing_file
        assert (verdict.backing_file == "") == (verdict.backing_format == "")
        assert 0 < verdict.size <= 1 << 50


@given(st.text(min_size=1, max_size=300))
def test_no_name_of_a_backing_file_leaves_the_folder(name: str) -> None:
    verdict = judge_image(image(qcow2(backing=name.encode(errors="replace"), backing_format=b"raw")), "qcow2")
    if isinstance(verdict, ImageHeader):
        assert verdict.backing_file == name
        assert Path("/folder", name).resolve().parent == Path("/folder")
