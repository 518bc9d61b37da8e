"""A lab whose hosts are fakes: steps, recipes, machines and messages for tests of the services."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lab.context import Lab
from lab.db import flights, hosts
from lab.db.session import make_engine, make_read_sessions, make_sessions
from lab.errors import ConfigError, InfraError, LabError, NotFoundError
from lab.flights.builds import BuildRequest
from lab.flights.model import Flight, Job, JobSpec
from lab.flights.recipe import _RECIPES, BROKEN, Line, Recipe, Role, register, run
from lab.flights.runvars import Runvars
from lab.flights.status import Blessing
from lab.flights.steps import _STEPS, Built, GuestFiles, StepContext, step
from lab.hosts.model import Host
from lab.hosts.protocols import BootTarget, Guard, Trace, no_guard, no_trace
from lab.services.construct import construct_flight
from lab.services.lead import lead
from lab.services.run_job import run_job
from lab.services.schedule import schedule
from lab.settings import Settings

_NUMBERS = itertools.count(1)
_OURS = "try-"


class FakePower:
    """A switch that does as it is told, unless `refuses` says why not."""

    def __init__(self, *, on: bool = False) -> None:
        self.on = on
        self.refuses: BaseException | None = None
        self.silent: LabError | None = None
        self.switched: list[bool] = []

    def set(self, on: bool) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.switched.append(on)
        self.on = on

    def get(self) -> bool | None:
        if self.silent is not None:
            raise self.silent
        return self.on


class FakeConsole:
    """A recording that tests write."""

    def __init__(self) -> None:
        self._data = b""

    def says(self, data: bytes) -> None:
        self._data += data

    def offset(self) -> int:
        return len(self._data)

    def read(self, start: int, end: int | None = None) -> bytes:
        return self._data[start:end]

    def wait_for(
        self, pattern: re.Pattern[bytes], *, since: int, timeout_s: float, guard: Guard = no_guard
    ) -> re.Match[bytes] | None:
        guard()
        return pattern.search(self._data, since)

    def write(self, data: bytes) -> None:
        self._data += data

    def time_of(self, offset: int) -> datetime | None:
        return None


class FakeHost:
    """A host whose power and console are fakes, and that has nothing else."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = "127.0.0.1"
        self.power = FakePower()
        self.console = FakeConsole()
        self.logs: Mapping[str, Path] = {}
        self.guard: Guard = no_guard
        self.trace: Trace = no_trace
        self.toolstack_asked = ""
        self.closed = 0
        self.close_error: BaseException | None = None
        self._using = threading.Lock()

    @property
    def boot(self) -> Any:
        raise NotImplementedError

    shell = toolstack = boot

    def attend(self, *, guard: Guard = no_guard, trace: Trace = no_trace) -> None:
        self.guard, self.trace = guard, trace

    def close(self) -> None:
        self.closed += 1
        if self.close_error is not None:
            raise self.close_error

    def use(self, work: Callable[[], None]) -> None:
        """Do `work` as the only user of the host."""
        if not self._using.acquire(blocking=False):
            raise AssertionError(f"two jobs on {self.name} at one time")
        try:
            work()
        finally:
            self._using.release()


class FakeMachines:
    """The lab's machines, all fakes."""

    def __init__(self, names: Iterable[str]) -> None:
        self.hosts = {name: FakeHost(name) for name in names}

    def __getitem__(self, name: str) -> FakeHost:
        return self.hosts[name]

    def open(self, host: str, *, toolstack: str = "xl") -> FakeHost:
        if host not in self.hosts:
            raise ConfigError(f"there is no host {host!r}")
        self.hosts[host].toolstack_asked = toolstack
        return self.hosts[host]

    def power_off(self, host: str) -> None:
        self.open(host).power.set(False)


class FakeImages:
    """Images `dom0-test` and `guest-test` exist; nothing can be booted."""

    def check(self, name: str) -> None:
        if name not in ("dom0-test", "guest-test"):
            raise NotFoundError(f"there is no image {name!r}")

    def boot_target(self, role: str, runvars: Runvars) -> BootTarget:
        raise InfraError("fakes do not boot")

    def guest_files(self, image: str) -> GuestFiles:
        return GuestFiles(kernel=f"/{image}/kernel", ramdisk=f"/{image}/ramdisk")


class FakeBuilds:
    """Builds that succeed at once, unless their revision is in `errors`."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        self.trees = {"xen"}
        self.made: list[tuple[str, str]] = []

    def check(self, request: BuildRequest) -> None:
        if request.tree not in self.trees:
            raise NotFoundError(f"there is no source tree {request.tree!r}")

    def version_of(self, request: BuildRequest) -> str:
        return "4.17"

    def make(
        self,
        request: BuildRequest,
        part: str,
        *,
        guard: Guard,
        log: Callable[[str], None],
        save: Callable[[str, bytes], None],
    ) -> Built:
        self.made.append((request.revision, part))
        save("build.log", b"make: done")
        if request.revision in self.errors:
            raise self.errors[request.revision]
        return self.find(f"{part}-{request.revision}")

    def find(self, key: str) -> Built:
        hypervisor = Path("xen") if key.startswith("hypervisor") else None
        part, _, revision = key.partition("-")
        return Built(
            key=key,
            part=part,
            commit=revision if len(revision) == 40 else "c0ffee",
            version="4.17",
            folder=Path("builds") / key,
            hypervisor=hypervisor,
            build_id="ab" * 20 if hypervisor else "",
        )


class FakeBell:
    """A bell inside one process; rings before a wait count."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1
        self._rung.set()

    def wait(self, timeout_s: float) -> bool:
        rung = self._rung.wait(timeout_s)
        self._rung.clear()
        return rung


@dataclass
class Messages:
    """A dispatch that only remembers."""

    jobs: list[tuple[int, str]] = field(default_factory=list)
    cleans: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def run_job(self, attempt: int, token: str) -> None:
        self.jobs.append((attempt, token))

    def clean_host(self, host: str) -> None:
        self.cleans.append(host)

    def ask_site(self, site: str) -> None:
        self.asked.append(site)


class Clock:
    """The real time, and `ahead` of it if wanted."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def a_host(name: str, *flags: str, **changes: Any) -> Host:
    return Host(**{"name": name, "arch": "x86_64", "flags": frozenset(flags or ("hvm", "equiv-a")), **changes})


def make_lab(url: str, home: Path, lab_hosts: Sequence[Host], **settings: Any) -> Lab:
    """A lab of fakes on a real database; its hosts are in it already."""
    (home / "logs").mkdir(parents=True, exist_ok=True)
    engine = make_engine(url)
    lab = Lab(
        settings=Settings(home=home, database_url=url, **settings),
        sessions=make_sessions(engine),
        reads=make_read_sessions(engine),
        clock=Clock(),
        hosts=tuple(lab_hosts),
        machines=FakeMachines(host.name for host in lab_hosts),
        images=FakeImages(),
        builds=FakeBuilds(),
        bell=FakeBell(),
        dispatch=Messages(),
    )
    with lab.sessions.begin() as session:
        hosts.sync_hosts(session, lab.hosts)
    return lab


def later(lab: Lab, seconds: float) -> Lab:
    """The same lab, seen by somebody whose clock is ahead."""
    clock = Clock()
    clock.ahead = timedelta(seconds=seconds)
    return replace(lab, clock=clock)


# --- steps and recipes


def a_step(function: Callable[[StepContext], None], *, timeout_s: float = 30.0) -> str:
    """Declare a function as a step under a name of its own."""
    name = f"{_OURS}{function.__name__.strip('<>_')}-{next(_NUMBERS)}"
    step(name, timeout_s=timeout_s)(function)
    return name


def a_recipe(*lines: Line, roles: Sequence[Role] = (Role(name="host"),)) -> str:
    """Register a recipe under a name of its own."""
    name = f"{_OURS}{next(_NUMBERS)}"
    register(Recipe(name=name, roles=tuple(roles), lines=lines))
    return name


def _boot(ctx: StepContext) -> None:
    ctx.host().power.set(True)


def _pass(ctx: StepContext) -> None:
    ctx.log(f"{ctx.job} was here")


BOOT = a_step(_boot)
PASS = a_step(_pass)
boot = run(BOOT, "boot", setup=True, iffail=BROKEN)
"""The line that switches the host on, as every recipe begins."""


def doing(function: Callable[[StepContext], None], *, timeout_s: float = 30.0) -> str:
    """A recipe that boots its host and then does `function`."""
    return a_recipe(boot, run(a_step(function, timeout_s=timeout_s), "work"))


PASSES = a_recipe(boot, run(PASS, "work"))
PAIR = a_recipe(
    run(BOOT, "boot/a", role="a", setup=True),
    run(BOOT, "boot/b", role="b", setup=True),
    run(PASS, "work", role="a"),
    roles=(Role(name="a", equivalent="pair"), Role(name="b", equivalent="pair")),
)


def _take_away(table: dict[str, Any]) -> dict[str, Any]:
    return {name: table.pop(name) for name in list(table) if name.startswith(_OURS)}


_LASTING_STEPS, _LASTING_RECIPES = _take_away(_STEPS), _take_away(_RECIPES)


@contextmanager
def trial_catalogue() -> Iterator[None]:
    """While this is open the lab knows the steps and recipes of tests; tests of the real ones never meet them."""
    _STEPS.update(_LASTING_STEPS)
    _RECIPES.update(_LASTING_RECIPES)
    try:
        yield
    finally:
        _take_away(_STEPS)
        _take_away(_RECIPES)


# --- what the tests of services do again and again


def spec(name: str, recipe: str = PASSES, **runvars: str) -> JobSpec:
    return JobSpec(name=name, recipe=recipe, runvars=runvars)


def submit(lab: Lab, *specs: JobSpec, **more: Any) -> int:
    with lab.sessions.begin() as session:
        return construct_flight(
            session,
            lab,
            specs,
            **{"branch": "trial", "intended": Blessing.PLAY, "submitter": "tester", **more},
        )


def start(lab: Lab) -> list[tuple[int, str]]:
    """Schedule once; returns the attempts that were dispatched by it."""
    messages = lab.dispatch
    assert isinstance(messages, Messages)
    before = len(messages.jobs)
    with lab.sessions.begin() as session:
        schedule(session, lab)
    return messages.jobs[before:]


def run_all(lab: Lab) -> list[Any]:
    """Schedule once and run what was started, one after the other."""
    return [run_job(lab, attempt, token) for attempt, token in start(lab)]


def job_of(lab: Lab, flight: int, name: str) -> Job:
    with lab.reads() as session:
        return flights.load_job(session, flight, name)


def flight_of(lab: Lab, flight: int) -> Flight:
    with lab.reads() as session:
        return flights.load_flight(session, flight)


def host_of(lab: Lab, name: str) -> Host:
    with lab.reads() as session:
        return hosts.load_host(session, name).host


@contextmanager
def leading(lab: Lab) -> Iterator[None]:
    """While this is open somebody leads the lab."""
    stop = threading.Event()
    leader = threading.Thread(target=lead, args=(lab, stop))
    leader.start()
    try:
        yield
    finally:
        stop.set()
        lab.bell.ring()
        leader.join(20)
        assert not leader.is_alive()
