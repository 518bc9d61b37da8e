"""Guests by Xen's own toolstack, `xl`, run in dom0."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lab.errors import ConfigError, Evidence, HostDiedError, LabError, StepFailure
from lab.hosts.drivers.guest.feed import LOGS, GuestFeed
from lab.hosts.drivers.guest.xlconsole import XlConsole
from lab.hosts.protocols import (
    CommandResult,
    Guard,
    GuestConfig,
    GuestState,
    HostAccess,
    Shell,
    Toolstack,
    no_guard,
)

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,48}")
_PATH = re.compile(r"/[A-Za-z0-9._/+@:=-]{1,1000}")
_TEXT = re.compile(r"[ !#-&(-\[\]-~]*")
_VDEV = re.compile(r"[a-z]{2,4}[0-9]{0,3}")
_BRIDGE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_OPTION = re.compile(r"[a-z][a-z0-9_]{0,47}")
_SET_HERE = frozenset(
    {"name", "type", "builder", "memory", "vcpus", "kernel", "ramdisk", "extra", "cmdline", "disk", "vif"}
) | {"boot", "hdtype"}
_KINDS = frozenset({"pv", "pvh", "hvm"})
_FORMATS = frozenset({"raw", "qcow2", "vhd"})
FIRST_MIGRATION_PORT = 7700
_MIGRATION_PORTS = 100

# $1 the guest; stdin its configuration. The logs of an earlier guest of this name are not this one's.
_CREATE = f"""
mkdir -p /run/lab && cat >"/run/lab/$1.cfg" || exit 99
xl domid "$1" >/dev/null 2>&1 || rm -f {LOGS}/guest-"$1".log {LOGS}/guest-"$1"--incoming.log
exec xl create "/run/lab/$1.cfg"
"""

# $1 first port, $2 how many, $3 the guest. Prints PORT PID once somebody listens. stdin must not be the ssh channel's.
_RECEIVE = f"""
port=$1; last=$(($1 + $2)); mkdir -p /run/lab
xl domid "$3" >/dev/null 2>&1 || rm -f {LOGS}/guest-"$3".log {LOGS}/guest-"$3"--incoming.log
while [ "$port" -lt "$last" ]; do
  hex=$(printf ':%04X 00000000:0000 0A' "$port")
  if ! grep -q "$hex" /proc/net/tcp; then
    setsid busybox nc -l -p "$port" -e xl migrate-receive </dev/null >/dev/null 2>"/run/lab/migrate-$port.log" &
    pid=$!; tries=0
    while [ "$tries" -lt 40 ] && kill -0 "$pid" 2>/dev/null; do
      grep -q "$hex" /proc/net/tcp && echo "$port $pid" && exit 0
      sleep 0.05; tries=$((tries + 1))
    done
    kill "$pid" 2>/dev/null
  fi
  port=$((port + 1))
done
cat "/run/lab/migrate-$1.log" >&2
exit 1
"""

# $1 the pid: still ours if it is nc or what nc became. A receiver that is asked to end takes its half guest along.
_END_RECEIVER = """
for try in 1 2 3 4 5; do
  case $(tr '\\0' ' ' </proc/"$1"/cmdline 2>/dev/null) in
    *migrate-receive*) kill "$1" 2>/dev/null; sleep 0.2 ;;
    *) exit 0 ;;
  esac
done
kill -9 "$1"
"""


@dataclass(frozen=True)
class XlToolstack:
    """The `Toolstack` of a host whose dom0 has xl.

    A guest that reboots or powers off is gone; one that crashes is kept as it died, so that its state is evidence:
    destroy it afterwards. Its vif is plugged by `script` in /etc/xen/scripts.
    """

    shell: Shell
    host: str
    feed: GuestFeed
    guard: Guard = no_guard
    wait: Callable[[float], None] = time.sleep
    script: str = "vif-lab"

    def version(self) -> str:
        """xl, and the version of Xen it drives."""
        said = self._said(self.shell.run("xl", "info", "xen_version", check=False), "info").stdout
        return f"xl {said.strip()}"

    def create(self, config: GuestConfig, *, timeout_s: float = 90.0) -> None:
        """Create and start a guest."""
        text = configuration(config, script=self.script).encode()
        self._said(
            self.shell.run("sh", "-c", _CREATE, "sh", config.name, stdin=text, timeout_s=timeout_s, check=False),
            f"create {config.name}",
        )

    def guests(self) -> Sequence[GuestState]:
        """All domains but dom0."""
        result = self._said(self.shell.run("xl", "list", check=False), "list")
        return [guest for guest in listed(result.stdout) if guest.domid != 0]

    def find(self, name: str) -> GuestState | None:
        """The domain of this name, or None."""
        return next((guest for guest in self.guests() if guest.name == name), None)

    def shutdown(self, name: str, *, timeout_s: float = 200.0) -> None:
        """Ask the guest to shut down and wait until it is gone."""
        until = time.monotonic() + timeout_s
        self._xl("shutdown", checked_name(name))
        while (found := self.find(name)) is not None:
            if "c" in found.state:
                message = f"{self.host}: guest {name} crashed as it was to shut down"
                raise StepFailure(message, evidence=self._seen(name))
            if time.monotonic() >= until:
                raise StepFailure(
                    f"{self.host}: guest {name} did not shut down within {timeout_s:.0f} s", evidence=self._seen(name)
                )
            self.guard()
            self.wait(0.3)

    def destroy(self, name: str) -> None:
        """End the guest at once."""
        self._xl("destroy", checked_name(name))

    def save(self, name: str, path: str, *, timeout_s: float = 200.0) -> None:
        """Suspend the guest to a file; it is gone from the host afterwards."""
        self._xl("save", checked_name(name), _matched(_PATH, path, "path"), timeout_s=timeout_s)

    def restore(self, path: str, *, timeout_s: float = 200.0) -> None:
        """Resume a saved guest."""
        self._xl("restore", _matched(_PATH, path, "path"), timeout_s=timeout_s)

    def migrate_local(self, name: str, *, timeout_s: float = 400.0) -> None:
        """Live-migrate the guest to this very host."""
        # With an empty -s, xl hands the "host" to a shell instead of ssh.
        self._xl("migrate", "-s", "", checked_name(name), "exec xl migrate-receive", timeout_s=timeout_s)
        self._arrived(self, name, self.host)

    def migrate(self, name: str, target: HostAccess, *, timeout_s: float = 400.0) -> int | None:
        """Live-migrate the guest to another host over the lab's network.

        The stream goes from xl through a relay of ours straight to a receiver that waits on the target for one
        connection: no ssh in between.
        """
        checked_name(name)
        started = target.shell.script(_RECEIVE, str(FIRST_MIGRATION_PORT), str(_MIGRATION_PORTS), name, timeout_s=30.0)
        port, pid = (int(word) for word in started.stdout.split()[:2])
        try:
            rune = f"exec migration-relay {_matched(_ADDRESS, target.address, 'address')} {port}"
            result = self.shell.run("xl", "migrate", "-s", "", name, rune, timeout_s=timeout_s, check=False)
            if result.exit_status != 0:
                said = _quietly(lambda: target.shell.run("cat", f"/run/lab/migrate-{port}.log", check=False).stdout)
                raise self._failure(
                    f"migrate {name} to {target.name}", result, more=f"\n--- receiver on {target.name}:\n{said}"
                )
        finally:
            _quietly(lambda: target.shell.script(_END_RECEIVER, str(pid), check=False).stdout)
        self._arrived(target.toolstack, name, target.name)
        if self.find(name) is not None:
            raise StepFailure(f"{self.host}: guest {name} is still here after its migration", evidence=self._seen(name))
        return sent_bytes(result.stderr)

    def console(self, name: str) -> XlConsole:
        """The guest's console."""
        return XlConsole(feed=self.feed, host=self.host, name=checked_name(name), guard=self.guard)

    def close(self) -> None:
        """Let the guests' consoles go."""
        self.feed.close()

    def _xl(self, *argv: str, timeout_s: float = 60.0) -> CommandResult:
        return self._said(self.shell.run("xl", *argv, timeout_s=timeout_s, check=False), " ".join(argv[:1] + argv[-1:]))

    def _said(self, result: CommandResult, what: str) -> CommandResult:
        if result.exit_status != 0:
            raise self._failure(what, result)
        return result

    def _failure(self, what: str, result: CommandResult, *, more: str = "") -> StepFailure:
        lines = [line for line in result.output.splitlines() if line.strip()]
        reason = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "it says nothing")
        return StepFailure(
            f"{self.host}: xl {what} failed: {reason.strip()[:200]}",
            evidence=Evidence(
                host=self.host, command=result.command, exit_status=result.exit_status,
                output=(result.output + more)[-20_000:],
            ),
        )  # fmt: skip

    def _arrived(self, at: Toolstack, name: str, host: str) -> None:
        """A migrated guest has its own name again, and nothing half-received is left."""
        names = [guest.name for guest in at.guests()]
        left = [other for other in names if other in {f"{name}--incoming", f"{name}--migratedaway"}]
        if name not in names or left:
            raise StepFailure(
                f"{host}: guest {name} did not arrive as it should; guests there: {', '.join(names) or 'none'}",
                evidence=self._seen(name),
            )

    def _seen(self, name: str) -> Evidence:
        output = _quietly(lambda: self.shell.run("xl", "list", check=False).stdout)
        return Evidence(
            host=self.host, command="xl list", output=output,
            console_tail=_quietly(lambda: self.console(name).text()[-4000:]),
        )  # fmt: skip


def sent_bytes(said: str) -> int | None:
    """How much the migration's relay says it sent.

    >>> sent_bytes("Migration successful.\\nmigration-relay: sent 140123456 bytes\\n")
    140123456
    """
    found = re.search(r"^migration-relay: sent ([0-9]+) bytes$", said, re.MULTILINE)
    return int(found[1]) if found else None


_ADDRESS = re.compile(r"[0-9A-Fa-f.:]{2,45}")


def configuration(config: GuestConfig, *, script: str = "vif-lab") -> str:
    """The guest's xl.cfg; `ConfigError` for anything that could be read as more than the value it is."""
    if config.kind not in _KINDS:
        raise ConfigError(f"guest {config.name}: there is no kind {config.kind!r}", hint="pv, pvh or hvm")
    lines: dict[str, str] = {
        "name": _quoted(checked_name(config.name)),
        "type": _quoted(config.kind),
        "memory": _count(config.memory_mib, "memory"),
        "vcpus": _count(config.vcpus, "vcpus"),
        **_booted(config),
        "on_poweroff": _quoted("destroy"),
        "on_reboot": _quoted("destroy"),
        "on_crash": _quoted("preserve"),
    }
    if config.kind == "hvm":
        # Nobody looks at its screen; and its emulated serial line is what makes it slow.
        lines |= {"vnc": "0", "sdl": "0", "vga": _quoted("none"), "vkb_device": "0", "xen_platform_pci": "1"}
    if config.disks:
        lines["disk"] = _list(
            f"format={_one_of(disk.format, _FORMATS, 'disk format')},vdev={_matched(_VDEV, disk.vdev, 'vdev')},"
            f"access={'ro' if disk.read_only else 'rw'},target={_matched(_PATH, disk.path, 'disk path')}"
            for disk in config.disks
        )
    if config.bridge is not None:
        mac = f",mac={_matched(_MAC, config.mac, 'MAC address')}" if config.mac is not None else ""
        kind = ",type=vif" if config.kind == "hvm" else ""  # no emulated card beside the PV one
        lines["vif"] = _list([f"bridge={_matched(_BRIDGE, config.bridge, 'bridge')},script={script}{mac}{kind}"])
    for name, value in (config.options or {}).items():
        if not _OPTION.fullmatch(name) or name in _SET_HERE:
            raise ConfigError(f"guest {config.name}: {name!r} is no further xl.cfg setting")
        lines[name] = str(int(value)) if isinstance(value, int) else _quoted(value)
    return "".join(f"{name} = {value}\n" for name, value in lines.items())


def _booted(config: GuestConfig) -> Mapping[str, str]:
    """What the guest boots: the kernel it is given, or its first disk."""
    if not config.kernel:
        if config.kind != "hvm" or not config.disks:
            raise ConfigError(f"guest {config.name} has nothing to boot", hint="a kernel, or for hvm a disk")
        # The firmware reads from an AHCI disk by DMA, but from an IDE one word by word, each an exit to QEMU.
        return {"boot": _quoted("c"), "hdtype": _quoted("ahci")}
    arguments = list(config.kernel_args)
    if not any(argument.startswith("console=") for argument in arguments):
        arguments.insert(0, "console=hvc0")
    return {
        "kernel": _quoted(_matched(_PATH, config.kernel, "kernel path")),
        "ramdisk": _quoted(_matched(_PATH, config.ramdisk, "ramdisk path")),
        "extra": _quoted(" ".join(arguments)),
    }


def listed(output: str) -> list[GuestState]:
    """The domains in the output of `xl list`."""
    guests = []
    for line in output.splitlines()[1:]:
        words = line.rsplit(maxsplit=5)  # a name of somebody else's may hold blanks
        if len(words) == 6 and all(word.isdecimal() for word in words[1:4]):
            name, domid, memory, vcpus, state, _ = words
            guests.append(
                GuestState(
                    name=name, domid=int(domid), memory_mib=int(memory), vcpus=int(vcpus), state=state.replace("-", "")
                )
            )
    return guests


def checked_name(name: str) -> str:
    """The name, if it may be a guest's; else `ConfigError`."""
    return _matched(_NAME, name, "guest name")


def _matched(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.fullmatch(text) or text.startswith("-"):
        raise ConfigError(f"{text[:80]!r} is not allowed as {what}", hint=f"it must match {pattern.pattern}")
    return text


def _one_of(text: str, allowed: frozenset[str], what: str) -> str:
    if text not in allowed:
        raise ConfigError(f"there is no {what} {text[:40]!r}", hint=", ".join(sorted(allowed)))
    return text


def _count(value: int, what: str) -> str:
    if value < 1:
        raise ConfigError(f"{what} must be at least 1, not {value}")
    return str(int(value))


def _quoted(text: str) -> str:
    """A string of the configuration. What would need escaping is refused: xl's own rules for it differ by version."""
    if not _TEXT.fullmatch(text):
        raise ConfigError(
            f"{text[:80]!r} cannot be put into a guest configuration",
            hint="printable ASCII without quotes and backslash",
        )
    return f'"{text}"'


def _list(values: Iterable[str]) -> str:
    return "[ " + ", ".join(_quoted(value) for value in values) + " ]"


def _quietly(ask: Callable[[], str]) -> str:
    """What could be learned while something else is being reported; never a second error on top."""
    try:
        return ask()
    except HostDiedError as error:
        return f"[{error.message}]"
    except LabError as error:
        return f"[not to be had: {error.message}]"
