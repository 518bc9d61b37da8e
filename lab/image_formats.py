"""Byte formats an image is made of: newc cpio archives, ELF files, compressed kernels. Pure functions on bytes."""

import bz2
import gzip
import lzma
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

_ELF_MAGIC = b"\x7fELF"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB = 1, 5
_TRAILER = "TRAILER!!!"


class FormatError(ValueError):
    """The bytes are not what the caller said they are."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in an archive. `mode` is file type and permissions; `data` of a link is its target."""

    path: str
    mode: int
    data: bytes = b""

    @classmethod
    def file(cls, path: str, data: bytes, permissions: int = 0o644) -> "Entry":
        return cls(path, stat.S_IFREG | permissions, data)

    @classmethod
    def link(cls, path: str, target: str) -> "Entry":
        return cls(path, stat.S_IFLNK | 0o777, target.encode())

    @classmethod
    def folder(cls, path: str, permissions: int = 0o755) -> "Entry":
        return cls(path, stat.S_IFDIR | permissions)


def cpio_archive(entries: Iterable[Entry]) -> bytes:
    """A newc archive of the entries, and of the folders above them, as the Linux kernel unpacks it.

    The same entries give the same bytes: sorted by path (a folder before what is in it), no times, owner root.
    Raises FormatError when two entries have one path.
    """
    by_path: dict[str, Entry] = {}
    for entry in entries:
        path = _normal(entry.path)
        if path in by_path:
            raise FormatError(f"{path} is in the archive twice")
        by_path[path] = entry
    for path in list(by_path):
        for parent in _parents(path):
            by_path.setdefault(parent, Entry.folder(parent))
    pieces = [
        _cpio_record(number, path, by_path[path].mode, by_path[path].data)
        for number, path in enumerate(sorted(by_path), start=1)
    ]
    pieces.append(_cpio_record(0, _TRAILER, 0, b""))
    return b"".join(pieces)


def read_cpio(archive: bytes) -> Iterator[Entry]:
    """The entries of one newc archive, in its order. Raises FormatError where it is not newc."""
    at = 0
    while True:
        if archive[at : at + 6] != b"070701":
            raise FormatError(f"no newc record at byte {at}")
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        data_at = _aligned(at + 110 + name_size)
        if name == _TRAILER:
            return
        yield Entry(name, mode, archive[data_at : data_at + size])
        at = _aligned(data_at + size)


def kernel_image(data: bytes, unzstd: Callable[[bytes], bytes]) -> bytes:
    """The uncompressed kernel in a vmlinuz: of a bzImage its ELF payload, of an arm64 Image the image itself.

    An ELF ends where its headers say: what bzImage adds behind (relocations for its own decompressor) is cut off.
    """
    if data[0x202:0x206] == b"HdrS":
        setup_sectors = data[0x1F1] or 4
        offset, length = struct.unpack_from("<II", data, 0x248)
        start = (setup_sectors + 1) * 512 + offset
        data = uncompressed(data[start : start + length], unzstd)
        if not data.startswith(_ELF_MAGIC):
            raise FormatError("the payload of the bzImage is not an ELF file")
        return data[: _elf_end(data)]
    return uncompressed(data, unzstd)


def uncompressed(data: bytes, unzstd: Callable[[bytes], bytes]) -> bytes:
    """`data` without its xz, gzip, bzip2, lzma or zstd compression; unchanged when it has none of them.

    Bytes behind the compressed stream (a bzImage appends the size) are ignored.
    """
    if data.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(data)
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress(data)
    if data.startswith(b"\x5d\x00\x00"):
        return lzma.LZMADecompressor(format=lzma.FORMAT_ALONE).decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return unzstd(data)
    if data.startswith(b"\x02\x21\x4c\x18"):
        raise FormatError("lz4-compressed kernels are not supported")
    return data


def is_elf(data: bytes) -> bool:
    """Whether the bytes begin like a little-endian ELF file."""
    return data.startswith(_ELF_MAGIC) and data[5:6] == b"\x01"


def elf_needs(data: bytes) -> tuple[str | None, tuple[str, ...]]:
    """What the dynamic loader needs to start this ELF file: its interpreter's path, and the names of its libraries."""
    interpreter: str | None = None
    loads: list[tuple[int, int, int]] = []
    dynamic = b""
    for kind, offset, address, size in _program_headers(data):
        if kind == _PT_LOAD:
            loads.append((address, offset, size))
        elif kind == _PT_INTERP:
            interpreter = data[offset : offset + size].rstrip(b"\0").decode()
        elif kind == _PT_DYNAMIC:
            dynamic = data[offset : offset + size]
    step, form = (16, "<QQ") if data[4] == 2 else (8, "<II")
    tags = list(struct.iter_unpack(form, dynamic[: len(dynamic) // step * step]))
    strings = next((value for tag, value in tags if tag == _DT_STRTAB), None)
    if strings is None:
        return interpreter, ()
    base = next(
        (offset + strings - address for address, offset, size in loads if address <= strings < address + size), None
    )
    if base is None:
        raise FormatError("the ELF file's string table is in no segment")
    return interpreter, tuple(_text_at(data, base + value) for tag, value in tags if tag == _DT_NEEDED)


def module_info(data: bytes) -> dict[str, list[str]]:
    """The key=value pairs in the .modinfo section of a kernel module; empty when there is no such section."""
    found: dict[str, list[str]] = {}
    for name, offset, size in _sections(data):
        if name != ".modinfo":
            continue
        for pair in data[offset : offset + size].split(b"\0"):
            key, separator, value = pair.partition(b"=")
            if separator:
                found.setdefault(key.decode(), []).append(value.decode(errors="replace"))
    return found


def _normal(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    if not parts or any(part in {".", ".."} for part in parts) or "\0" in path:
        raise FormatError(f"{path!r} is no path for an archive")
    return "/".join(parts)


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _aligned(size: int) -> int:
    return -(-size // 4) * 4


def _cpio_record(number: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head.ljust(_aligned(len(head)), b"\0") + data.ljust(_aligned(len(data)), b"\0")


def _program_headers(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(type, file offset, address, size in the file) of each."""
    if not is_elf(data):
        raise FormatError("not a little-endian ELF file")
    if data[4] == 2:
        table, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
        for i in range(count):
            kind, _flags, offset, address, _physical, length = struct.unpack_from("<IIQQQQ", data, table + i * size)
            yield kind, offset, address, length
    else:
        table, size, count = *struct.unpack_from("<I", data, 28), *struct.unpack_from("<HH", data, 42)
        for i in range(count):
            kind, offset, address, _physical, length = struct.unpack_from("<IIIII", data, table + i * size)
            yield kind, offset, address, length


def _sections(data: bytes) -> Iterator[tuple[str, int, int]]:
    """(name, file offset, size) of each section."""
    if not is_elf(data):
        return
    if data[4] == 2:
        (table,), counts, form = struct.unpack_from("<Q", data, 40), 58, "<IIQQQQ"
    else:
        (table,), counts, form = struct.unpack_from("<I", data, 32), 46, "<IIIIII"
    size, count, names = struct.unpack_from("<HHH", data, counts)
    if not count:
        return
    heads = [struct.unpack_from(form, data, table + i * size) for i in range(count)]
    for name, kind, _flags, _address, offset, length in heads:
        yield _text_at(data, heads[names][4] + name), offset, 0 if kind == 8 else length  # 8: NOBITS


def _elf_end(data: bytes) -> int:
    """The first byte behind everything the headers speak of."""
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    ends = [table + size * count]
    ends += [offset + length for _, offset, length in _sections(data)]
    ends += [offset + length for _, offset, _, length in _program_headers(data)]
    return int(max(ends))


def _text_at(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
