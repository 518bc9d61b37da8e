"""What a disk image says of itself, read from its own bytes before any other program opens it.

An image is input: its header can name other files (a backing file, an external data file, a parent), which whoever
opens the image opens too, and a guest can write a header into a raw disk. So the header is read here, without help of
what it might deceive, and refused unless it is the format that was declared and stays within its own folder.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

HEAD_BYTES: Final = 65536
"""How much of an image's beginning is read: enough for every header that is accepted."""

FOOTER_BYTES: Final = 512
"""How much of its end: a VHD has a footer there."""

LARGEST_BYTES: Final = 1 << 50
MOST_SNAPSHOTS: Final = 256
DEEPEST_CHAIN: Final = 4
"""How many images may stand upon each other."""

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


@dataclass(frozen=True, kw_only=True)
class ImageBytes:
    """What was read of an image file: its first `HEAD_BYTES`, its last `FOOTER_BYTES`, and how long it is."""

    head: bytes
    tail: bytes
    size: int


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """An image that may be opened.

    `size` is that of the disk in bytes; `subformat` is a VHD's kind (fixed, dynamic); a `backing_file` is a plain
    name in the image's own folder, in `backing_format`.
    """

    format: str
    size: int
    subformat: str = ""
    backing_file: str = ""
    backing_format: str = ""
    snapshots: int = 0


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An image that must not be opened, and why."""

    reason: str


class _RefusedError(Exception):
    pass


def judge_image(image: ImageBytes, declared: str) -> ImageHeader | Refusal:
    """What the image is, if it is what was `declared` (raw, qcow2 or vhd) and may be opened; else why not."""
    try:
        return _READERS[declared](image)
    except KeyError:
        return Refusal(reason=f"there is no format {declared!r}")
    except _RefusedError as refused:
        return Refusal(reason=str(refused))


def _refuse_unless(good: bool, reason: str) -> None:
    if not good:
        raise _RefusedError(reason)


def _rounded_up(number: int, unit: int) -> int:
    """How many units hold the number."""
    return -(-number // unit)


def _shown(name: bytes) -> str:
    return repr(name[:200].decode(errors="backslashreplace"))


# --- raw

_MAGICS: Final = {
    b"QFI\xfb": "qcow2",
    b"conectix": "VHD",
    b"vhdxfile": "VHDX",
    b"KDMV": "VMDK",
    b"COWD": "VMDK",
    b"# Disk DescriptorFile": "VMDK",
    b"QED\0": "QED",
    b"LUKS\xba\xbe": "LUKS",
    b"<<< ": "VDI",
    b"WithoutFreeSpace": "Parallels",
    b"WithouFreSpacExt": "Parallels",
}


def other_format(head: bytes) -> str | None:
    """The format whose magic number an image begins with; None for what can only be raw."""
    return next((name for magic, name in _MAGICS.items() if head.startswith(magic)), None)


def _raw(image: ImageBytes) -> ImageHeader:
    # Whoever guesses a format takes this for a header, though a guest may have written it.
    other = other_format(image.head)
    _refuse_unless(other is None, f"it is declared as raw, but begins like {other}")
    _refuse_unless(0 < image.size <= LARGEST_BYTES, f"its size {image.size} is absurd")
    return ImageHeader(format="raw", size=image.size)


# --- qcow2

_CORRUPT, _EXTERNAL_DATA, _LARGE_ENTRIES = 1 << 1, 1 << 2, 1 << 4
_KNOWN_FEATURES: Final = 0b11111  # dirty, corrupt, external data, compression, extended L2
_BACKING_FORMAT, _DATA_FILE, _CRYPTO = 0xE2792ACA, 0x44415441, 0x0537BE77
_FORMAT_WORDS: Final = {b"raw": "raw", b"qcow2": "qcow2"}


def _qcow2(image: ImageBytes) -> ImageHeader:
    head = image.head
    _refuse_unless(head.startswith(b"QFI\xfb"), "it is declared as qcow2, but does not begin like one")
    _refuse_unless(len(head) >= 72, "its header is cut short")
    version, backing_at, backing_length, cluster_bits, size, crypt, l1_size, l1_at, _, refcount_clusters = (
        struct.unpack_from(">IQIIQIIQQI", head, 4)
    )
    snapshots, snapshots_at = struct.unpack_from(">IQ", head, 60)
    _refuse_unless(version in {2, 3}, f"its version {version} is not 2 or 3")
    _refuse_unless(9 <= cluster_bits <= 21, f"its clusters of 2^{cluster_bits} bytes are absurd")
    cluster: int = 1 << cluster_bits
    _refuse_unless(0 < size <= LARGEST_BYTES and size % 512 == 0, f"the disk's size {size} is absurd")
    _refuse_unless(crypt == 0, "it is encrypted")
    header_length, features = 72, 0
    if version == 3:
        _refuse_unless(len(head) >= 104, "its header is cut short")
        features, header_length = struct.unpack_from(">Q", head, 72)[0], struct.unpack_from(">I", head, 100)[0]
        _refuse_unless(104 <= header_length <= 4096, f"its header of {header_length} bytes is absurd")
    _refuse_unless(not features & ~_KNOWN_FEATURES, f"it needs unknown features ({features:#x})")
    _refuse_unless(not features & _CORRUPT, "it is marked as corrupt")
    _refuse_unless(not features & _EXTERNAL_DATA, "its data is in another file")
    entry = cluster // 8
    needed = _rounded_up(size, cluster * (entry // 2 if features & _LARGE_ENTRIES else entry))
    _refuse_unless(needed <= l1_size <= needed + (1 << 16), f"its first table has {l1_size} entries, not {needed}")
    for what, at in (("first table", l1_at), ("snapshot table", snapshots_at if snapshots else 0)):
        _refuse_unless(at % cluster == 0 and at <= image.size, f"its {what} lies outside, at {at}")
    _refuse_unless(1 <= refcount_clusters <= (8 << 20) // cluster + 1, "its table of reference counts is absurd")
    _refuse_unless(snapshots <= MOST_SNAPSHOTS, f"it has {snapshots} snapshots")
    extensions = _extensions(head, header_length, min(cluster, len(head)))
    data_file = _shown(extensions.get(_DATA_FILE, b""))
    _refuse_unless(_DATA_FILE not in extensions, f"its data is in another file, {data_file}")
    _refuse_unless(_CRYPTO not in extensions, "it is encrypted")
    backing_file = backing_format = ""
    if backing_at or backing_length:
        end = backing_at + backing_length
        _refuse_unless(
            header_length <= backing_at and 0 < backing_length <= 1023 and end <= min(cluster, len(head)),
            "the name of its backing file lies outside its header",
        )
        backing_file = _plain_name(head[backing_at:end])
        word = extensions.get(_BACKING_FORMAT)
        _refuse_unless(word is not None, f"it does not say the format of its backing file {backing_file!r}")
        _refuse_unless(word in _FORMAT_WORDS, f"its backing file has the format {_shown(word or b'')}")
        backing_format = _FORMAT_WORDS[word or b""]
    return ImageHeader(
        format="qcow2", size=size, backing_file=backing_file, backing_format=backing_format, snapshots=snapshots
    )


def _extensions(head: bytes, at: int, end: int) -> dict[int, bytes]:
    """The header extensions by their type; each is a type, a length, and data filled up to eight bytes."""
    found: dict[int, bytes] = {}
    while at + 8 <= end:
        kind, length = struct.unpack_from(">II", head, at)
        if kind == 0:
            return found
        at += 8
        _refuse_unless(at + length <= end, "a header extension is longer than the header")
        _refuse_unless(kind not in found, "it has a header extension twice")
        found[kind] = head[at : at + length]
        at += (length + 7) & ~7
    return found


def _plain_name(name: bytes) -> str:
    """The name of a file beside the image; refused: folders, absolute paths, URLs, `json:` and other protocols."""
    text = name.decode(errors="replace")
    plain = _PLAIN_NAME.fullmatch(text) is not None
    _refuse_unless(plain, f"its backing file {_shown(name)} is not a plain name in its own folder")
    return text


# --- VHD

_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_UNUSED_BLOCK: Final = 0xFFFFFFFF
_NOWHERE: Final = (1 << 64) - 1


def vhd_checksum(data: bytes, at: int) -> int:
    """The checksum of a VHD's footer or header: the inverted sum of its bytes without the four at `at`."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF


def _vhd(image: ImageBytes) -> ImageHeader:
    footer = image.tail
    ends_so = len(footer) == FOOTER_BYTES and footer.startswith(b"conectix")
    _refuse_unless(ends_so, "it is declared as VHD, but does not end like one")
    version, data_at = struct.unpack_from(">IQ", footer, 12)
    size, _, _, _, kind, checksum = struct.unpack_from(">QHBBII", footer, 48)
    _refuse_unless(checksum == vhd_checksum(footer, 64), "its footer's checksum is wrong")
    _refuse_unless(version >> 16 == 1, f"its version {version:#x} is not 1")
    _refuse_unless(0 < size <= LARGEST_BYTES and size % 512 == 0, f"the disk's size {size} is absurd")
    match kind:
        case 2:  # _FIXED
            _refuse_unless(image.size == size + FOOTER_BYTES, f"a disk of {size} bytes does not fit its {image.size}")
            other = other_format(image.head)
            _refuse_unless(other is None, f"it is a fixed VHD, but begins like {other}")
            return ImageHeader(format="vhd", size=size, subformat="fixed")
        case 3 | 4:  # _DYNAMIC, _DIFFERENCING
            _refuse_unless(image.head[:FOOTER_BYTES] == footer, "the copy of its footer at its beginning differs")
            _dynamic_header(image, data_at, size, differencing=kind == _DIFFERENCING)
            return ImageHeader(format="vhd", size=size, subformat="dynamic")
        case _:
            raise _RefusedError(f"its kind {kind} is neither fixed nor dynamic")


def _dynamic_header(image: ImageBytes, at: int, size: int, *, differencing: bool) -> None:
    header = image.head[at : at + 1024]
    _refuse_unless(
        at >= FOOTER_BYTES and len(header) == 1024 and header.startswith(b"cxsparse"), f"it has no header at {at}"
    )
    (checksum,) = struct.unpack_from(">I", header, 36)
    _refuse_unless(checksum == vhd_checksum(header, 36), "its header's checksum is wrong")
    if differencing:
        parent = header[64:576].decode("utf-16-be", errors="replace").rstrip("\0")
        raise _RefusedError(f"it is the difference to another file, {parent[:200]!r}")
    _refuse_unless(not any(header[576:768]), "it names a parent, but is no difference to one")
    table_at, _, entries, block = struct.unpack_from(">QIII", header, 16)
    _refuse_unless(512 <= block <= 1 << 28 and block & (block - 1) == 0, f"its blocks of {block} bytes are absurd")
    _refuse_unless(size <= entries * block <= size + LARGEST_BYTES, f"{entries} blocks do not hold {size} bytes")
    inside = at + 1024 <= table_at and table_at + 4 * entries <= image.size
    _refuse_unless(inside, f"its table of blocks lies outside, at {table_at}")
    # Each block has a bitmap of its sectors before it. Only the part of the table that was read is looked at.
    whole = _rounded_up(block // 512, 8 * 512) * 512 + block
    table = image.head[table_at : table_at + 4 * entries]
    used = sorted(at for (at,) in struct.iter_unpack(">I", table[: len(table) & ~3]) if at != _UNUSED_BLOCK)
    _refuse_unless(
        all(first * 512 + whole <= second * 512 for first, second in pairwise(used)), "two of its blocks overlap"
    )
    _refuse_unless(
        not used or (used[0] * 512 >= table_at + 4 * entries and used[-1] * 512 + whole <= image.size - FOOTER_BYTES),
        "one of its blocks lies outside the file",
    )


_READERS: Final = {"raw": _raw, "qcow2": _qcow2, "vhd": _vhd}
