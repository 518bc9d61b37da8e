"""Disk images, made byte by byte: honest ones, and with `changes` ones that lie."""

from __future__ import annotations

import struct

from lab.flights.image_headers import vhd_checksum

MIB = 1 << 20
CLUSTER = 65536


def qcow2(
    *,
    version: int = 3,
    backing: bytes = b"",
    backing_format: bytes | None = b"qcow2",
    backing_at: int | None = None,
    cluster_bits: int = 16,
    size: int = 16 * MIB,
    crypt: int = 0,
    l1_size: int = 1,
    l1_at: int = 3 * CLUSTER,
    refcount_clusters: int = 1,
    snapshots: int = 0,
    snapshots_at: int = 4 * CLUSTER,
    features: int = 0,
    header_length: int = 104,
    extensions: bytes = b"",
) -> bytes:
    if backing and backing_format is not None:
        extensions += extension(0xE2792ACA, backing_format)
    extensions += bytes(8)
    name_at = header_length + len(extensions) if backing_at is None else backing_at
    head = b"QFI\xfb" + struct.pack(
        ">IQIIQIIQQIIQ",
        *(version, name_at if backing else 0, len(backing), cluster_bits, size, crypt, l1_size, l1_at),
        *(CLUSTER, refcount_clusters, snapshots, snapshots_at if snapshots else 0),
    )
    if version == 3:
        head += struct.pack(">QQQII", features, 0, 0, 4, header_length)
    return (head + extensions + backing).ljust(8 * CLUSTER, b"\0")


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")


def footer(*, size: int = 16 * MIB, kind: int = 3, version: int = 0x10000, data_at: int = 512) -> bytes:
    whole = struct.pack(">8sIIQI4sI4sQQHBBII16s", b"conectix", 2, version, data_at, 0, b"qemu", 0x50003, b"Wi2k", size,
                        size, 481, 4, 17, kind, 0, bytes(16)).ljust(512, b"\0")  # fmt: skip
    return summed(whole, 64)


def summed(data: bytes, at: int) -> bytes:
    return data[:at] + struct.pack(">I", vhd_checksum(data, at)) + data[at + 4 :]


def dynamic_vhd(
    *, kind: int = 3, blocks: tuple[int, ...] = (), parent: bytes = b"", locator: bytes = b"", entries: int = 8,
    block: int = 2 * MIB, table_at: int = 1536, size: int = 16 * MIB,
) -> bytes:  # fmt: skip
    header = struct.pack(">8sQQIII", b"cxsparse", (1 << 64) - 1, table_at, 0x10000, entries, block)
    header = (header.ljust(64, b"\0") + parent.ljust(512, b"\0") + locator.ljust(192, b"\0")).ljust(1024, b"\0")
    table = b"".join(struct.pack(">I", at) for at in blocks).ljust(512, b"\xff")
    foot = footer(kind=kind, size=size)
    return foot + summed(header, 36) + table + bytes(sum(at != 0xFFFFFFFF for at in blocks) * (block + 512)) + foot


def fixed_vhd(content: bytes) -> bytes:
    return content + footer(size=len(content), kind=2, data_at=(1 << 64) - 1)
