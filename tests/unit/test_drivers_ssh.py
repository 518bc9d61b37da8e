"""The ssh shell against a server of this process: quoting, limits, guards, lost hosts."""

from __future__ import annotations

import base64
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lab.errors import Aborted, HostDiedError, InfraError, StepFailure
from lab.hosts.drivers.shell.identity import identity_of
from lab.hosts.drivers.shell.ssh import KEPT_OUTPUT, Endpoint, SshShell
from lab.hosts.protocols import Guard, no_guard


def new_key() -> paramiko.Ed25519Key:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return paramiko.Ed25519Key(file_obj=StringIO(pem.decode()))


class _Server(paramiko.ServerInterface):
    def __init__(self, host: Host) -> None:
        self._host = host

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == "root" and key.get_base64() == self._host.client
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        if destination != ("127.0.0.1", 16509):
            return paramiko.OPEN_FAILED_CONNECT_FAILED
        threading.Thread(target=self._greet, daemon=True).start()
        return paramiko.OPEN_SUCCEEDED

    def _greet(self) -> None:
        channel = self._host.transports[-1].accept(5)
        channel.sendall(b"hello")

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        self._host.commands.append(command)
        stdin = b""
        while piece := channel.recv(1 << 16):
            stdin += piece
        done = subprocess.run(command, shell=True, input=stdin, capture_output=True, check=False, timeout=30)
        try:
            channel.sendall(done.stdout)
            channel.sendall_stderr(done.stderr)
            channel.send_exit_status(done.returncode)
        except OSError:
            pass  # the other side has gone
        channel.close()


@dataclass
class Host:
    """A host that can be reached, die, and come back with another key."""

    client: str
    key: paramiko.PKey = field(default_factory=new_key)
    alive: bool = True
    commands: list[str] = field(default_factory=list)
    transports: list[paramiko.Transport] = field(default_factory=list)
    listening: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(self.key)
            try:
                transport.start_server(server=_Server(self))
            except (paramiko.SSHException, EOFError, OSError):
                continue  # whoever came did not like our key
            self.transports.append(transport)

    def cut(self) -> None:
        for transport in self.transports:
            transport.close()

    def end(self) -> None:
        self.alive = False
        self.listening.close()
        self.cut()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    identity = identity_of(tmp_path / "identity")
    found = Host(client=identity.client_public.split()[1])
    threading.Thread(target=found.serve, daemon=True).start()
    yield found
    found.end()


def shell_of(host: Host, folder: Path, guard: Guard = no_guard, key: paramiko.PKey | None = None) -> SshShell:
    endpoint = Endpoint(
        address="127.0.0.1",
        port=host.listening.getsockname()[1],
        client_key=folder / "identity" / "client_key",
        host_public=base64.b64encode((key or host.key).asbytes()).decode(),
    )
    return SshShell("h", lambda: endpoint, alive=lambda: host.alive, tail=lambda: "the last words", guard=guard)


@pytest.fixture
def shell(host: Host, tmp_path: Path) -> SshShell:
    return shell_of(host, tmp_path)


def test_arguments_arrive_as_they_are(shell: SshShell) -> None:
    nasty = "a 'b' \"c\" $(id) `id` \\ ; & | > <\n*"
    result = shell.run("printf", "%s", nasty)
    assert (result.stdout, result.exit_status) == (nasty, 0)
    assert shell.script('printf "%s:%s" "$2" "$1"', "x y", "$z").stdout == "$z:x y"


def test_both_streams_and_the_status_come_back(shell: SshShell) -> None:
    result = shell.script("echo out; echo err >&2; exit 3", check=False)
    assert (result.stdout, result.stderr, result.exit_status) == ("out\n", "err\n", 3)
    with pytest.raises(StepFailure, match="exit status 3") as caught:
        shell.script("echo out; echo err >&2; exit 3")
    assert caught.value.evidence is not None
    assert (caught.value.evidence.exit_status, caught.value.evidence.output) == (3, "out\nerr\n")


def test_files_go_and_come(shell: SshShell, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    path = tmp_path / "a file"
    shell.put(str(path), data, mode=0o640)
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o640
    assert shell.get(str(path)) == data
    with pytest.raises(StepFailure, match="longer"):
        shell.get(str(path), limit=100)
    with pytest.raises(StepFailure):
        shell.get(str(tmp_path / "nowhere"))


def test_a_port_of_dom0_is_dialled_through_the_same_connection(shell: SshShell, host: Host) -> None:
    channel = shell.dial(16509)
    channel.settimeout(5)
    assert channel.recv(9) == b"hello"
    channel.close()
    with pytest.raises(paramiko.ChannelException):
        shell.dial(1)
    host.end()
    with pytest.raises(HostDiedError):
        shell.dial(16509)


def test_only_the_ends_of_endless_output_are_kept(shell: SshShell) -> None:
    result = shell.script(f"echo begin; head -c {3 * KEPT_OUTPUT} /dev/zero; echo end", timeout_s=120)
    assert len(result.stdout) < KEPT_OUTPUT + 100
    assert result.stdout.startswith("begin\n")
    assert result.stdout.endswith("end\n")
    assert "bytes left out" in result.stdout


def test_a_command_that_takes_too_long_is_the_products_fault(shell: SshShell) -> None:
    began = time.monotonic()
    with pytest.raises(StepFailure, match="did not end within"):
        shell.run("sleep", "20", timeout_s=0.7)
    assert time.monotonic() - began < 5


def test_the_guard_ends_a_command(host: Host, tmp_path: Path) -> None:
    def guard() -> None:
        if any("sleep" in command for command in host.commands):
            raise Aborted("enough")

    began = time.monotonic()
    with pytest.raises(Aborted):
        shell_of(host, tmp_path, guard).run("sleep", "20")
    assert time.monotonic() - began < 5


def test_a_host_that_dies_is_told_at_once_with_its_last_words(host: Host, shell: SshShell) -> None:
    shell.run("true")
    threading.Timer(0.5, host.end).start()
    began = time.monotonic()
    with pytest.raises(HostDiedError, match="its machine is off") as caught:
        shell.run("sleep", "20")
    assert time.monotonic() - began < 3
    assert caught.value.evidence is not None
    assert caught.value.evidence.console_tail == "the last words"
    with pytest.raises(HostDiedError):
        shell.run("true")


def test_a_lost_connection_is_made_again_once(host: Host, shell: SshShell) -> None:
    shell.run("true")
    host.cut()
    assert shell.run("echo", "again").stdout == "again\n"
    assert len(host.transports) == 2


def test_a_host_with_another_key_is_not_talked_to(host: Host, tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="another host key"):
        shell_of(host, tmp_path, key=new_key()).run("true")
    assert host.commands == []


def test_two_threads_share_one_connection(host: Host, shell: SshShell) -> None:
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda i=i: results.append(shell.run("echo", str(i)).stdout)) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [f"{i}\n" for i in range(8)]
    assert len(host.transports) == 1


def test_the_clock_is_compared(shell: SshShell) -> None:
    offset, uncertainty = shell.clock_offset()
    assert abs(offset) <= uncertainty + 0.05
