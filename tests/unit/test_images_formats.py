"""cpio, ELF and kernel formats."""

import gzip
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.image_formats import (
    Entry,
    FormatError,
    cpio_archive,
    elf_needs,
    is_elf,
    kernel_image,
    module_info,
    read_cpio,
    uncompressed,
)

names = st.text(st.characters(categories=("L", "N"), include_characters="-_. "), min_size=1, max_size=20).filter(
    lambda name: name not in {".", "..", "TRAILER!!!"}
)
files = st.dictionaries(names, st.tuples(st.sampled_from([0o600, 0o644, 0o755]), st.binary(max_size=300)), max_size=12)


def no_zstd(data: bytes) -> bytes:
    raise AssertionError(data)


@given(files)
def test_what_goes_into_an_archive_comes_out(content: dict[str, tuple[int, bytes]]) -> None:
    entries = [Entry.file(f"top/{name}", data, permissions) for name, (permissions, data) in content.items()]
    archive = cpio_archive(entries)
    assert len(archive) % 4 == 0
    read = [entry for entry in read_cpio(archive) if stat.S_ISREG(entry.mode)]
    assert sorted(read, key=lambda entry: entry.path) == sorted(entries, key=lambda entry: entry.path)
    assert cpio_archive(reversed(entries)) == archive


def test_a_folder_comes_before_what_is_in_it() -> None:
    archive = cpio_archive([Entry.file("a/b/c", b""), Entry.file("a-b", b""), Entry.link("z", "a/b")])
    assert [entry.path for entry in read_cpio(archive)] == ["a", "a-b", "a/b", "a/b/c", "z"]


@pytest.mark.skipif(shutil.which("cpio") is None, reason="the cpio program is not installed")
def test_the_cpio_program_reads_it(tmp_path: Path) -> None:
    archive = cpio_archive([Entry.file("d/f", b"text", 0o755), Entry.link("d/l", "f")])
    subprocess.run(["cpio", "-id", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "d/l").readlink() == Path("f")
    assert (tmp_path / "d/f").read_bytes() == b"text"
    assert stat.S_IMODE((tmp_path / "d/f").stat().st_mode) == 0o755


@pytest.mark.parametrize("path", ["", "/", "../a", "a/../b", "a\0b"])
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(FormatError, match="no path for an archive"):
        cpio_archive([Entry.file(path, b"")])


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(FormatError, match="twice"):
        cpio_archive([Entry.file("/a", b""), Entry.file("a", b"")])


def test_something_else_is_no_cpio() -> None:
    with pytest.raises(FormatError, match="byte 0"):
        list(read_cpio(b"nothing"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs an ELF program")
def test_an_elf_program_names_its_loader_and_libraries() -> None:
    data = Path(shutil.which("env") or "/usr/bin/env").read_bytes()
    interpreter, libraries = elf_needs(data)
    assert is_elf(data)
    assert interpreter is not None
    assert "ld-linux" in interpreter
    assert any(name.startswith("libc.so") for name in libraries)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_kernel_module_of_either_size_tells_what_it_needs(bits: int) -> None:
    names, info = b"\0.modinfo\0.shstrtab\0", b"depends=crc16,jbd2\0alias=fs-ext4\0alias=ext3\0"
    head, section, word = (52, "<IIIIII", "<I") if bits == 32 else (64, "<IIQQQQ", "<Q")
    size = struct.calcsize(section)
    sections = [(0,) * 6, (1, 1, 0, 0, head + len(names), len(info)), (10, 3, 0, 0, head, len(names))]
    elf = bytearray(b"\x7fELF" + bytes([1 if bits == 32 else 2, 1])).ljust(head, b"\0")
    struct.pack_into(word, elf, 32 if bits == 32 else 40, head + len(names) + len(info))
    struct.pack_into("<HHH", elf, 46 if bits == 32 else 58, size, len(sections), 2)
    data = bytes(elf) + names + info + b"".join(struct.pack(section, *one) for one in sections)
    assert module_info(data) == {"depends": ["crc16,jbd2"], "alias": ["fs-ext4", "ext3"]}


def test_compression_is_seen_by_its_first_bytes() -> None:
    assert uncompressed(gzip.compress(b"kernel"), no_zstd) == b"kernel"
    assert uncompressed(b"plain", no_zstd) == b"plain"
    assert uncompressed(b"\x28\xb5\x2f\xfd..", lambda data: data[4:]) == b".."
    with pytest.raises(FormatError, match="lz4"):
        uncompressed(b"\x02\x21\x4c\x18", no_zstd)


def test_a_bzimage_without_a_kernel_is_refused() -> None:
    with pytest.raises(FormatError, match="not an ELF"):
        kernel_image(b"\0" * 0x202 + b"HdrS" + b"\0" * 4096, no_zstd)
