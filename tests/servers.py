"""Real servers that the tests start, kill and start again: PostgreSQL and Redis."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def find_postgres() -> str | None:
    """The path of PostgreSQL's initdb, None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    return shutil.which("initdb") or next(map(str, found), None)


class PostgresServer:
    """A PostgreSQL server with an empty cluster of its own; `initdb` is that program's path.

    What was committed survives `kill` if it is `durable`; without, it is quicker.
    """

    def __init__(self, initdb: str, *, durable: bool = False) -> None:
        self._binaries = Path(initdb).resolve().parent
        self._folder = Path(tempfile.mkdtemp(prefix="flightline-pg-"))
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        port = free_port()
        self.url = f"postgresql+psycopg://lab@127.0.0.1:{port}"
        self._options = (
            f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder} -c fsync=off "
            f"-c synchronous_commit={'on' if durable else 'off'} -c full_page_writes=off -c shared_buffers=16MB "
            "-c max_connections=60"
        )
        self._must("initdb", "-D", "data", "-A", "trust", "-U", "lab", "-E", "UTF8", "--locale=C", "--no-sync")

    def start(self) -> None:
        """Start it, or start it again."""
        end = time.monotonic() + 30
        while True:
            done = self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", self._options, "start")
            if done.returncode == 0:
                return
            # What a killed server left behind goes away by and by: its children have to notice first.
            assert time.monotonic() < end, done.stdout + (self._folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """`kill -9`."""
        os.kill(int((self._folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def stop(self) -> None:
        """Stop it for good; its data go."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _must(self, program: str, *args: str) -> None:
        done = self._run(program, *args)
        assert done.returncode == 0, done.stdout

    def _run(self, program: str, *args: str) -> subprocess.CompletedProcess[str]:
        # to a file: a server that is started would keep a pipe open
        with tempfile.TemporaryFile("w+") as output:
            command = [*self._as_user, str(self._binaries / program), *args]
            done = subprocess.run(command, cwd=self._folder, stdout=output, stderr=output, check=False, timeout=60)
            output.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, output.read(), "")


class RedisServer:
    """A Redis server that keeps nothing; `binary` is its program's path."""

    def __init__(self, binary: str) -> None:
        self._binary = binary
        self._folder = Path(tempfile.mkdtemp(prefix="flightline-redis-"))
        self._port = free_port()
        self._running: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it, or start it again."""
        command = [self._binary, "--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._running = subprocess.Popen(
            [*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not listens(self._port):
            assert self._running.poll() is None, "redis-server ended"
            assert time.monotonic() < deadline, "redis-server does not listen"
            time.sleep(0.02)

    def kill(self) -> None:
        """`kill -9`."""
        assert self._running is not None
        self._running.kill()
        self._running.wait(10)

    def stop(self) -> None:
        """Stop it for good."""
        if self._running is not None:
            self._running.send_signal(signal.SIGTERM)
            self._running.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)
