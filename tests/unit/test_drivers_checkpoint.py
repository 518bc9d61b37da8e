"""Checkpoints of emulated hosts: what they are keyed by, which are kept, and what happens to bad ones."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import InfraError
from lab.hosts.drivers.machine import identity_channel
from lab.hosts.drivers.machine.accel import qemu_version
from lab.hosts.drivers.machine.checkpoint import UNUSED_FOR_S, Facts, Kept, content_key, memory_options, to_prune
from lab.hosts.drivers.machine.checkpoint_store import CheckpointStore
from lab.hosts.drivers.machine.place import BootRecord, Place
from lab.hosts.drivers.machine.qemu import QemuPower
from lab.hosts.protocols import BootTarget, StartRequest
from lab.labfile import QemuSettings

SETTINGS = QemuSettings(method="qemu", accel="tcg")


# --- keys


def a_target(folder: Path, **changed: object) -> BootTarget:
    folder.mkdir(exist_ok=True)
    for name in ("xen", "vmlinux", "initramfs", "media", "tools"):
        if not (folder / name).exists():
            (folder / name).write_text(name)
    values: dict[str, object] = {
        "key": "k", "hypervisor": folder / "xen", "kernel": folder / "vmlinux", "initramfs": folder / "initramfs",
        "media": folder / "media", **changed,
    }  # fmt: skip
    return BootTarget(**values)  # type: ignore[arg-type]


def a_host(home: Path, name: str = "h", index: int = 1, limit_mib: int = 100, **settings: int) -> QemuPower:
    return QemuPower(
        Place(home, name),
        SETTINGS.model_copy(update=settings),
        index,
        checkpoints=CheckpointStore(home / "checkpoints", limit_mib),
    )


def test_any_host_of_a_lab_may_start_from_what_another_has_saved(tmp_path: Path) -> None:
    target = a_target(tmp_path / "files")
    one = a_host(tmp_path, "emu0", 1)._checkpoint_key(target, "tcg")
    assert one
    assert a_host(tmp_path, "emu1", 2)._checkpoint_key(target, "tcg") == one
    copied = a_target(tmp_path / "copied")
    assert a_host(tmp_path)._checkpoint_key(copied, "tcg") == one, "the same content elsewhere is the same machine"


@pytest.mark.parametrize("changed", [{"xen_args": ("a",)}, {"dom0_args": ("a",)}, {"media": None}])
def test_another_command_line_is_another_machine(tmp_path: Path, changed: dict[str, object]) -> None:
    files = tmp_path / "files"
    host = a_host(tmp_path)
    assert host._checkpoint_key(a_target(files), "tcg") != host._checkpoint_key(a_target(files, **changed), "tcg")


@pytest.mark.parametrize("name", ["xen", "vmlinux", "initramfs", "media", "tools"])
def test_another_file_is_another_machine(tmp_path: Path, name: str) -> None:
    files = tmp_path / "files"
    target = a_target(files, overlays=(files / "tools",))
    host = a_host(tmp_path)
    before = host._checkpoint_key(target, "tcg")
    (files / name).write_text("another")
    assert host._checkpoint_key(target, "tcg") != before


def test_other_settings_are_another_machine(tmp_path: Path) -> None:
    target = a_target(tmp_path / "files")
    keys = {
        a_host(tmp_path)._checkpoint_key(target, "tcg"),
        a_host(tmp_path, memory_mib=4096)._checkpoint_key(target, "tcg"),
        a_host(tmp_path, cpus=2)._checkpoint_key(target, "tcg"),
        a_host(tmp_path, dom0_memory_mib=512)._checkpoint_key(target, "tcg"),
    }
    assert len(keys) == 4
    assert content_key(["a"], {}, "QEMU 7") != content_key(["a"], {}, "QEMU 8")


def test_some_boots_are_always_cold(tmp_path: Path) -> None:
    target = a_target(tmp_path / "files")
    assert not a_host(tmp_path)._checkpoint_key(a_target(tmp_path / "files", start=StartRequest.COLD), "tcg")
    assert not a_host(tmp_path)._checkpoint_key(target, "kvm")
    assert not a_host(tmp_path)._checkpoint_key(None, "tcg")
    assert not a_host(tmp_path, limit_mib=0)._checkpoint_key(target, "tcg")
    assert not QemuPower(Place(tmp_path, "h"), SETTINGS, 1)._checkpoint_key(target, "tcg")
    (tmp_path / "files" / "xen").unlink()
    assert not a_host(tmp_path)._checkpoint_key(target, "tcg")


@given(st.lists(st.text()), st.dictionaries(st.text(), st.text()), st.text())
def test_a_key_is_a_name_of_a_folder(command: list[str], files: dict[str, str], qemu: str) -> None:
    key = content_key(command, files, qemu)
    assert len(key) == 24
    assert set(key) <= set("0123456789abcdef")
    assert content_key(command, dict(reversed(files.items())), qemu) == key


def test_memory_is_private_unless_it_is_to_be_saved() -> None:
    assert memory_options("q35", 512, "own") == ["-M", "q35", "-m", "512"]
    assert any("share=on" in option for option in memory_options("q35", 512, "shared"))
    restored = memory_options("q35", 512, "restored")
    assert any("share=off" in option for option in restored)
    assert restored[-2:] == ["-incoming", "defer"]


# --- pruning


def test_the_longest_unused_go_first_and_the_new_one_stays() -> None:
    kept = [Kept(key=key, bytes=10, used_at=at) for key, at in (("old", 1.0), ("new", 3.0), ("middle", 2.0))]
    assert to_prune(kept, limit=30, now=4.0) == ()
    assert to_prune(kept, limit=20, now=4.0) == ("old",)
    assert to_prune(kept, limit=10, now=4.0, spare="old") == ("new", "middle")
    assert to_prune(kept, limit=5, now=4.0, spare="old") == ("new", "middle")
    assert to_prune(kept, limit=1000, now=1.5 + UNUSED_FOR_S) == ("old",)


@given(
    st.dictionaries(st.text("abc", min_size=1), st.tuples(st.integers(0, 50), st.floats(0, 100))),
    st.integers(0, 100),
)
def test_what_stays_fits(sizes: dict[str, tuple[int, float]], limit: int) -> None:
    kept = [Kept(key=key, bytes=size, used_at=at) for key, (size, at) in sizes.items()]
    gone = to_prune(kept, limit=limit, now=100.0)
    assert sum(one.bytes for one in kept if one.key not in gone) <= limit


# --- the store


def filled(text: bytes = b"state", memory: int = 4096) -> Callable[[Path], Facts]:
    def write(folder: Path) -> Facts:
        (folder / "ram").write_bytes(bytes(memory))
        (folder / "state").write_bytes(text)
        return Facts(
            target="t", memory_bytes=memory, state_bytes=len(text), state_sha256=hashlib.sha256(text).hexdigest(),
            saved_at=1.0,
        )  # fmt: skip

    return write


def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", 100)
    assert not store.has("k")

    def breaks(folder: Path) -> Facts:
        filled()(folder)
        raise InfraError("the machine's state was not saved")

    with pytest.raises(InfraError, match="not saved"):
        store.add("k", breaks)
    assert not store.has("k")
    assert [path.name for path in store.folder.iterdir()] == [".lock"]
    assert store.add("k", filled())
    assert store.check("k").target == "t"
    assert not store.add("k", breaks), "somebody else was quicker"
    store.discard("k")
    store.discard("k")
    assert not store.has("k")


def test_what_a_killed_process_left_half_done_is_removed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", 100)
    (store.folder / ".other-new").mkdir(parents=True)
    (store.folder / ".other-new" / "ram").write_bytes(b"x" * 10)
    assert store.add("k", filled())
    assert not (store.folder / ".other-new").exists()


@pytest.mark.parametrize("file", ["ram", "state", "facts.json"])
@pytest.mark.parametrize("how", ["cut", "gone", "other"])
def test_a_checkpoint_that_is_not_what_was_saved_is_refused(tmp_path: Path, file: str, how: str) -> None:
    store = CheckpointStore(tmp_path / "c", 100)
    store.add("k", filled())
    path = store.path("k") / file
    match how:
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
        case "gone":
            path.unlink()
        case "other" if file != "ram":  # what is wrong inside the memory shows when it runs
            path.write_bytes(b"?" * path.stat().st_size)
        case _:
            return
    with pytest.raises(InfraError):
        store.check("k")


def test_two_that_save_the_same_at_once_save_it_once(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", 100)
    entered, results = threading.Event(), []

    def slow(folder: Path) -> Facts:
        entered.set()
        threading.Event().wait(0.2)
        return filled()(folder)

    first = threading.Thread(target=lambda: results.append(store.add("k", slow)))
    first.start()
    entered.wait(5)
    results.append(CheckpointStore(store.folder, 100).add("k", filled()))
    first.join()
    assert sorted(results) == [False, True]


def test_room_is_made_for_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", 1)
    for number, key in enumerate(("a", "b", "c")):
        store.add(key, filled(os.urandom(700_000)))
        os.utime(store.path(key), (number, number))
    assert [store.has(key) for key in ("a", "b", "c")] == [False, False, True]


def test_a_files_digest_follows_its_content(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", 1)
    file = tmp_path / "file"
    file.write_text("one")
    first = store.digest(file)
    assert first == hashlib.sha256(b"one").hexdigest() == store.digest(file)
    file.write_text("three")
    assert store.digest(file) == hashlib.sha256(b"three").hexdigest()
    (store.folder / ".digests.json").write_text("{torn")
    assert store.digest(file) == hashlib.sha256(b"three").hexdigest()


def test_hosts_that_boot_at_once_digest_their_files_without_harm(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", 1)
    files = [tmp_path / str(number) for number in range(8)]
    for file in files:
        file.write_bytes(file.name.encode())
    with ThreadPoolExecutor(max_workers=8) as pool:
        for _ in range(20):
            (store.folder / ".digests.json").unlink(missing_ok=True)
            assert list(pool.map(store.digest, files)) == [hashlib.sha256(f.name.encode()).hexdigest() for f in files]
    assert [path.name for path in store.folder.iterdir()] == [".digests.json"]


# --- who a restored machine is


def test_a_message_cannot_be_two() -> None:
    assert identity_channel.message({"A": "b", "C": b"\n\n"}) == b"A=b\nC=Cgo=\n\n"
    for bad in ("a\nLAB_NAME=b", ""):
        with pytest.raises(ValueError, match="LAB_IP"):
            identity_channel.message({"LAB_IP": bad})


def answering(path: str, answer: bytes) -> threading.Thread:
    """Play dom0 (and QEMU) at the other end of the pipes."""

    def play() -> None:
        said_to, answered = Path(f"{path}.in"), Path(f"{path}.out")
        with said_to.open("rb", buffering=0) as said, answered.open("r+b", buffering=0) as out:
            said.read(100)
            out.write(answer)

    thread = threading.Thread(target=play)
    thread.start()
    return thread


@pytest.mark.parametrize("answer", [b"ok\n", b"failed 1\n"])
def test_the_machine_says_whether_it_took_up_its_identity(tmp_path: Path, answer: bytes) -> None:
    path = str(tmp_path / "identity")
    identity_channel.make_pipes(path)
    dom0 = answering(path, answer)
    if answer == b"ok\n":
        identity_channel.tell(path, b"A=b\n\n", alive=lambda: True, within_s=5)
    else:
        with pytest.raises(InfraError, match="failed 1"):
            identity_channel.tell(path, b"A=b\n\n", alive=lambda: True, within_s=5)
    dom0.join()


def test_a_machine_that_does_not_answer_is_not_waited_for_long(tmp_path: Path) -> None:
    path = str(tmp_path / "identity")
    with pytest.raises(InfraError, match="not there"):
        identity_channel.tell(path, b"A=b\n\n", alive=lambda: True, within_s=5)
    identity_channel.make_pipes(path)
    with pytest.raises(InfraError, match="within"):
        identity_channel.tell(path, b"A=b\n\n", alive=lambda: True, within_s=0)
    with pytest.raises(InfraError, match="ended"):
        identity_channel.tell(path, b"A=b\n\n", alive=lambda: False, within_s=5)


# --- falling back


def test_a_checkpoint_that_does_not_come_up_is_thrown_away_and_the_host_boots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = a_host(tmp_path)
    host.place.save_target(a_target(tmp_path / "files"))
    key = host._checkpoint_key(host.place.target(), "tcg")
    assert host.checkpoints is not None
    host.checkpoints.add(key, filled())
    (host.checkpoints.path(key) / "state").write_bytes(b"STATE")
    booted: list[tuple[object, ...]] = []
    monkeypatch.setattr(QemuPower, "_boot", lambda self, *given: booted.append(given))
    host.place.create()
    host._start()
    [(target, chosen, again, note)] = booted
    assert (target, chosen, again) == (host.place.target(), "tcg", key), "and is saved again"
    assert "not what was saved" in str(note)
    assert not host.checkpoints.has(key)


def test_only_a_cold_boot_becomes_a_checkpoint(tmp_path: Path) -> None:
    host = a_host(tmp_path)
    host.keep()  # never switched on
    host.place.create()
    record = BootRecord(mark="m", ssh_port=1, console_offset=0, accel="tcg", start="checkpoint", checkpoint="k")
    host.place.save_boot(record)
    host.keep()
    assert host.place.boot() == record


def test_a_save_that_fails_is_noted_and_nothing_more(tmp_path: Path) -> None:
    host = a_host(tmp_path)
    host.place.create()
    host.place.save_boot(BootRecord(mark="m", ssh_port=1, console_offset=0, accel="tcg", checkpoint="k", note="cold"))
    host.keep()
    record = host.place.boot()
    assert record is not None
    assert (record.checkpoint, record.note) == ("", "cold; no checkpoint of it: the machine is off")


def test_a_missing_qemu_has_no_version() -> None:
    assert qemu_version("qemu-system-of-nobody") == (0, 0)
