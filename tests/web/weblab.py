"""A lab with a lived-in database, for tests and for looking at the pages: `python tests/web/weblab.py PORT`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Engine

from lab.context import Lab
from lab.db.base import Base
from lab.db.flights import (
    add_attempt,
    add_event,
    add_flight,
    claim_attempt,
    close_flight,
    find_attempt,
    load_job,
    save_runvar,
    save_step,
    set_attempt_status,
    set_job_status,
)
from lab.db.hosts import fence_host, release_hosts, set_health, set_host_setup, sync_hosts, take_host
from lab.db.session import make_engine, make_read_sessions, make_sessions
from lab.db.waits import save_waits
from lab.flights.model import JobSpec, StepResult, Wait
from lab.flights.recipe import Recipe, Role, run
from lab.flights.recipe import test_frame as frame  # under its own name pytest takes it for a test
from lab.flights.status import Blessing, JobStatus, StepStatus
from lab.hosts.model import Health, Host, HostState
from lab.settings import Settings

J, S = JobStatus, StepStatus
HOST = (Role(name="host"),)
PAIR = (Role(name="src_host", equivalent="pair"), Role(name="dst_host", equivalent="pair"))
GUEST = ("guest-create", "guest-console", "guest-saverestore", "guest-localmigrate", "guest-stop", "guest-start")


def _recipe(name: str, roles: tuple[Role, ...], *steps: str, summary: str = "") -> Recipe:
    return Recipe(name=name, roles=roles, lines=frame(roles, [run(step) for step in steps]), summary=summary)


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _recipe("test-xl", HOST, *GUEST, "guest-destroy", summary="a guest's whole life with xl"),
        _recipe("test-xsm", HOST, "xsm-enforcing", "xsm-denied", "guest-create", "guest-stop"),
        _recipe("test-disk", HOST, "disk-create", "guest-create", "disk-write", "disk-verify", "guest-stop"),
        Recipe(
            name="test-migrate-pair",
            roles=PAIR,
            lines=frame(PAIR, [run("guest-create"), run("guest-migrate/src_dst"), run("guest-migrate/dst_src")]),
        ),
    )
}
BAD_TEXT = (
    "\x1b[1;31m(XEN) Xen call trace:\x1b[0m\r\n<script>alert(1)</script>\r\n(XEN)    [<ffff82d0402>] R memory.c#x+0x1\n"
)


class Nothing:
    """Stands where a port is not used."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"the web face used {name}")


@dataclass
class Clock:
    """Real time, moved so that the tale ends now."""

    def __call__(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class Demo:
    """A lab, its engine, and pens to write on with."""

    lab: Lab
    engine: Engine
    flight: int = 0
    running: int = 0
    """the attempt that still runs"""
    tokens: dict[int, str] = field(default_factory=dict)

    def add(self, flight: int, kind: str, **data: object) -> None:
        with self.lab.sessions.begin() as session:
            add_event(session, kind=kind, now=self.lab.clock(), flight=flight, data=data)

    def finish_step(self, stepno: int = 8, status: StepStatus = S.PASS, reason: str = "") -> None:
        """The running step of the running job ends."""
        now = self.lab.clock()
        with self.lab.sessions.begin() as session:
            save_step(
                session,
                self.running,
                StepResult(
                    stepno=stepno,
                    testid="guest-create",
                    step="guest-create",
                    status=status,
                    started=now - timedelta(seconds=9),
                    finished=now,
                    host="emu1",
                    reason=reason,
                    log=f"{self.flight}/test-amd64-xl-pvh/1/{stepno:02d}.guest-create.log",
                ),
            )
            add_event(session, kind="step", now=now, flight=self.flight, data={"testid": "guest-create"})


@contextmanager
def empty_lab(home: Path) -> Iterator[Demo]:
    """A lab with tables and nothing in them."""
    settings = Settings(home=home, file=home / "lab.toml", database_url=f"sqlite:///{home / 'lab.db'}")
    engine = make_engine(settings.database)
    Base.metadata.create_all(engine)
    nothing: Any = Nothing()
    lab = Lab(
        settings=settings,
        sessions=make_sessions(engine),
        reads=make_read_sessions(engine),
        clock=Clock(),
        hosts=(),
        machines=nothing,
        images=nothing,
        builds=nothing,
        bell=nothing,
        dispatch=nothing,
    )
    try:
        yield Demo(lab=lab, engine=engine)
    finally:
        engine.dispose()


SECONDS = {
    "build-check": 0.3,
    "xen-install": 6.2,
    "host-boot": 21.0,
    "xen-boot": 2.1,
    "host-ping": 0.8,
    "leak-check": 1.4,
    "guest-create": 8.9,
    "guest-console": 1.2,
    "guest-saverestore": 14.3,
    "guest-localmigrate": 75.5,
    "guest-migrate": 18.7,
    "logs-capture": 4.4,
}


def tell(demo: Demo) -> None:
    """Two old flights and one under way: passes, a failure, a broken attempt tried again, a running job."""
    lab = demo.lab
    now = lab.clock()
    with lab.sessions.begin() as session:
        sync_hosts(
            session,
            [
                Host(name="emu0", arch="amd64", flags=frozenset({"hvm", "emulated"}), properties={"memory_mib": 2048}),
                Host(name="emu1", arch="amd64", flags=frozenset({"hvm", "emulated"}), properties={"memory_mib": 2048}),
                Host(name="emu2", arch="amd64", flags=frozenset({"emulated"}), properties={"memory_mib": 1024}),
                Host(name="italia0", arch="amd64", flags=frozenset({"hvm", "iommu", "equiv-italia"})),
            ],
        )
        set_health(session, "emu2", Health.SUSPECT, reason="2 broken attempts in a row", actor="judge", now=now)
        set_health(
            session,
            "italia0",
            Health.MAINTENANCE,
            reason="new disk on order",
            actor="ian",
            now=now - timedelta(days=3),
        )
    for days, branch, note in ((2, "xen-unstable", "nightly"), (1, "xen-4.20-testing", "nightly")):
        flight = _submit(demo, branch, now - timedelta(days=days), ["test-amd64-xl", "test-amd64-xsm"], note)
        for job in ("test-amd64-xl", "test-amd64-xsm"):
            _run(demo, flight, job, now - timedelta(days=days), {"host": "emu0"}, J.PASS)
        with lab.sessions.begin() as session:
            close_flight(session, flight, blessing=Blessing.REAL, now=now - timedelta(days=days, minutes=-6))
    jobs = [
        "test-amd64-xl",
        "test-amd64-xl-pvh",
        "test-amd64-xsm",
        "test-amd64-migrate-pair",
        "test-amd64-xl-qcow2",
        "test-amd64-xl-vhd",
    ]
    started = now - timedelta(minutes=6)
    demo.flight = flight = _submit(demo, "xen-unstable", started, jobs, "xen.git 2f3c1e9 “x86: tidy the page tables”")
    soon = started + timedelta(seconds=2)
    _run(demo, flight, "test-amd64-xl", soon, {"host": "emu0"}, J.PASS)
    _run(demo, flight, "test-amd64-xsm", soon, {"host": "emu2"}, J.FAIL, at="xsm-denied")
    pair = {"src_host": "emu1", "dst_host": "emu2"}
    _run(demo, flight, "test-amd64-migrate-pair", soon + timedelta(seconds=60), pair, J.BROKEN, at="host-boot/dst_host")
    again = {"src_host": "emu0", "dst_host": "emu2"}
    _run(demo, flight, "test-amd64-migrate-pair", soon + timedelta(seconds=175), again, J.PASS)
    demo.running = _run(
        demo, flight, "test-amd64-xl-pvh", now - timedelta(seconds=42), {"host": "emu1"}, J.RUNNING, at="guest-create"
    )
    with lab.sessions.begin() as session:
        wait = Wait(kind="waiting_for_host", text="waits for a host: emu1 is held by 3.test-amd64-xl-pvh")
        save_waits(session, {(flight, "test-amd64-xl-qcow2"): wait}, now)
        set_job_status(
            session,
            flight,
            "test-amd64-xl-vhd",
            current=J.QUEUED,
            to=J.BLOCKED,
            reason="needs build-amd64-vhd, which did not pass",
        )
    console = lab.settings.home / "hosts" / "emu1" / "console.log"
    console.parent.mkdir(parents=True)
    console.write_bytes(
        b"".join(b"(XEN) [    %d.%06d] line %d of the boot\r\n" % (n // 40, n * 137 % 10**6, n) for n in range(400))
        + b"\x1b[32mdom0 login:\x1b[0m <script>alert(2)</script>\r\n"
    )


def _submit(demo: Demo, branch: str, started: datetime, jobs: Sequence[str], note: str) -> int:
    def recipe(job: str) -> str:
        for word, name in (
            ("xsm", "test-xsm"),
            ("pair", "test-migrate-pair"),
            ("qcow2", "test-disk"),
            ("vhd", "test-disk"),
        ):
            if word in job:
                return name
        return "test-xl"

    with demo.lab.sessions.begin() as session:
        return add_flight(
            session,
            branch=branch,
            intended=Blessing.REAL,
            submitter="cron",
            note=note,
            jobs=[
                JobSpec(
                    name=job,
                    recipe=recipe(job),
                    runvars={"arch": "amd64", "dom0_image": "dom0-xen-4.20-amd64", "dom0_mem": "512"},
                )
                for job in jobs
            ],
            now=started,
        )


def _run(
    demo: Demo, flight: int, job: str, start: datetime, hosts: Mapping[str, str], end: JobStatus, *, at: str = ""
) -> int:
    """One attempt, step by step; the step `at` goes as `end` says."""
    lab = demo.lab
    with lab.sessions.begin() as session:
        recipe = RECIPES[load_job(session, flight, job).recipe]
        fences = {name: fence_host(session, name) for name in hosts.values()}
        attempt = add_attempt(
            session,
            flight,
            job,
            token=f"token-{flight}-{job}",
            hosts=[(role, name, fences[name] or 0, False) for role, name in hosts.items()],
            now=start,
            until=start + timedelta(hours=1),
        )
        for name in hosts.values():
            take_host(session, name, attempt=attempt, holder=f"{flight}.{job}", now=start)
            set_host_setup(session, name, "9f2c4a7be01d3358", flight)
        token = f"token-{flight}-{job}"
        claim_attempt(session, attempt, token, worker="worker-1", until=start + timedelta(hours=1))
        set_job_status(session, flight, job, current=J.QUEUED, to=J.PREPARING)
        set_job_status(session, flight, job, current=J.PREPARING, to=J.RUNNING)
        set_attempt_status(session, attempt, token, J.RUNNING)
        row = find_attempt(session, attempt)
        assert row is not None
        tries = row.number
        clock, ended, reason, number = start + timedelta(seconds=0.4), False, "", 0
        for line in recipe.lines:
            if ended and not line.always:
                continue
            number += 1
            role = line.role or next(iter(hosts))
            status = S.PASS
            if line.testid == at:
                status, ended = S(end.value), True
            if line.testid == "leak-check/check" and job == "test-amd64-xl":
                status = S.SKIPPED
            if line.testid == at and end is J.FAIL:
                reason = "the denial was not seen: \x1b[31mno avc line\x1b[0m within 30 s"
            elif line.testid == at and end is J.BROKEN:
                reason = "emu2: dom0 did not come up within 90 s"
            length = timedelta(seconds=SECONDS.get(line.step, 5.0))
            running = status is S.RUNNING
            finished = None if running else clock + length
            save_step(
                session,
                attempt,
                _step(
                    lab,
                    flight,
                    job,
                    tries,
                    number,
                    line,
                    hosts[role],
                    status,
                    reason,
                    clock,
                    finished,
                ),
            )
            add_event(session, kind="step", now=finished or clock, flight=flight, data={"testid": line.testid})
            clock += length
            if running:
                return attempt
        save_runvar(session, flight, job, "xen_version", "4.20.0")
        save_runvar(session, flight, job, "guest_ip", "10.77.0.12")
        set_attempt_status(session, attempt, token, end, reason=reason, finished=clock)
        set_job_status(
            session,
            flight,
            job,
            current=J.RUNNING,
            to=J.QUEUED if end is J.BROKEN else end,
            reason="tried again on another host" if end is J.BROKEN else reason,
        )
        release_hosts(session, attempt, state=HostState.FREE, setups=None, flight=None, now=clock)
    return attempt


def _step(
    lab: Lab,
    flight: int,
    job: str,
    number: int,
    stepno: int,
    line: Any,
    host: str,
    status: StepStatus,
    reason: str,
    started: datetime,
    finished: datetime | None,
) -> StepResult:
    folder = lab.logs / str(flight) / job / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{stepno:02d}.{line.testid.replace('/', '-')}"
    bad = status in (S.FAIL, S.BROKEN)
    log = folder / f"{stem}.log"
    log.write_text(
        "".join(f"12:00:{n:02} + xl something {n}\n" for n in range(12))
        + (BAD_TEXT if bad else "")
        + ("dom0: waiting for the guest …\n" if status is S.RUNNING else "")
    )
    if bad:
        (folder / f"{stem}.xl-dmesg.txt").write_text(BAD_TEXT)
        (folder / f"{stem}.page.html").write_text("<script>alert(3)</script>")
        (folder / f"{stem}.memory.bin").write_bytes(b"\x7fELF\0\0\1\2")
    return StepResult(
        stepno=stepno,
        testid=line.testid,
        step=line.step,
        status=status,
        started=started,
        finished=finished,
        host=host,
        reason=reason if bad else "not supported by this dom0" if status is S.SKIPPED else "",
        evidence={"command": "xl dmesg", "exit status": "1", "output": BAD_TEXT, "console tail": BAD_TEXT}
        if bad
        else {},
        log=str(log.relative_to(lab.logs)),
        console={host: (100 * stepno, 100 * stepno + 90 if finished else None)},
    )


@contextmanager
def served(demo: Demo, *, port: int = 0, max_streams: int | None = None) -> Iterator[str]:
    """The lab's web face on a real socket; yields its address."""
    import uvicorn

    from web.app import Server, create_app
    from web.streams import Streams

    app = create_app(demo.lab, recipes=RECIPES)
    if max_streams is not None:
        app.state.streams = Streams(max_streams)
    server = Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        limit = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < limit
            time.sleep(0.02)
        bound = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{bound}"
    finally:
        server.should_exit = True
        thread.join(timeout=15)
        assert not thread.is_alive(), "the server did not stop: a stream is still open"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder, empty_lab(Path(folder)) as shown:
        tell(shown)
        with served(shown, port=int(sys.argv[1])) as url:
            sys.stdout.write(f"{url}\n")
            sys.stdout.flush()
            while True:
                time.sleep(1)
