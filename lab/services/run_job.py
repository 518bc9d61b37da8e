"""Run a job: claim its attempt, run the recipe on its hosts, keep the evidence, settle.

A job takes minutes to hours, so this service opens short transactions of its own and holds none while hardware works.
Every write is made under the attempt's token: a worker that was fenced off can neither write nor switch anything.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta

from lab.context import Lab
from lab.db import flights
from lab.db import hosts as host_rows
from lab.db.tables import AttemptRow
from lab.errors import Aborted, Evidence, HostDiedError, InfraError, LabError, PowerError, StepFailure
from lab.flights.model import Job, StepResult
from lab.flights.plain_text import clean
from lab.flights.recipe import STOP_AFTER, Line, Recipe, batches, find_recipe
from lab.flights.reuse import readable_inputs, setup_key
from lab.flights.runvars import Runvars
from lab.flights.status import JobStatus, StepStatus, job_status_of, step_status_of
from lab.flights.steps import SkipStep, Step, find_step
from lab.flights.xsm import parse_avc
from lab.hosts.hardware import Fault
from lab.hosts.protocols import DEFAULT_TOOLSTACK, Guard, HostAccess
from lab.services.heartbeat import process_name
from lab.services.hold import Hold, either
from lab.services.judge_host import note_hardware
from lab.services.settle import settle_attempt
from lab.services.sites import note_answer
from lab.services.step_context import JobStep, StepLog
from lab.services.watch import FatalConsoleError, HostWatch, console_tail

log = logging.getLogger(__name__)

EVIDENCE_LIMIT = 16_384
"""Characters of one piece of evidence that go into the database; the step's log has the whole."""


def run_job(lab: Lab, attempt: int, token: str) -> JobStatus | None:
    """Run an attempt to its end; returns its status, or None when it was not (or is no longer) ours."""
    until = lab.clock() + timedelta(seconds=lab.settings.lease_s)
    with lab.sessions.begin() as session:
        if not flights.claim_attempt(session, attempt, token, worker=process_name(), until=until):
            return None
        row = flights.find_attempt(session, attempt)
        assert row is not None
        job = flights.load_job(session, row.flight, row.job)
        note_answer(session, lab, row.site)
    with Hold(lab, attempt=attempt, token=token, flight=row.flight, job=row.job) as hold:
        run = _Run(lab=lab, row=row, token=token, job=job, hold=hold, recipe=find_recipe(job.recipe))
        return run.whole()


@dataclass(kw_only=True)
class _Run:
    """One attempt at work."""

    lab: Lab
    row: AttemptRow
    token: str
    job: Job
    hold: Hold
    recipe: Recipe
    hosts: dict[str, HostAccess] = field(default_factory=dict)
    outcomes: list[StepStatus] = field(default_factory=list)
    reason: str = ""
    blames: str | None = None
    """the host on which the first step broke"""
    power_failure: str = ""
    """why, when it was a power command"""
    started: bool = False
    watch: HostWatch | None = None

    def whole(self) -> JobStatus | None:
        """Run every line, then settle. Whatever happens, the attempt is settled or was taken from us."""
        clean = True
        try:
            self._open_hosts()
            reused = {held.role for held in self.row.hosts if held.reused}
            for batch in batches(self.recipe.lines_of(self.job.values)):
                if self.hold.lost:
                    return None
                if self._failed and not batch[0][1].always:
                    continue
                self._batch(batch, reused)
            status = job_status_of(self.outcomes)
            if not self.started and status is JobStatus.PASS:
                self._start()
            if self.hold.aborted:
                status, self.reason = JobStatus.ABORTED, "the flight was aborted"
            # A host is handed on as it stands only after a whole job that passed; anything else may have left it in
            # any state.
            clean = status is not JobStatus.PASS or bool(self.job.values.get(STOP_AFTER))
        except Exception as error:  # noqa: BLE001 - whatever it is, the job is broken and its hosts must come back
            status, self.reason = JobStatus.BROKEN, _one_line(error)
        finally:
            self._close_hosts()
        with self.lab.sessions.begin() as session:
            settled = settle_attempt(
                session,
                self.lab,
                self.row,
                token=self.token,
                status=status,
                reason=self.reason,
                clean=clean,
                setups=None if clean else self._setups(),
                blames=self.blames if status is JobStatus.BROKEN else None,
                power_failure=self.power_failure,
            )
        return status if settled else None

    @property
    def _failed(self) -> bool:
        return job_status_of(self.outcomes) is not JobStatus.PASS

    def _role(self, line: Line) -> str:
        """The role a line works on; empty in a job without hosts."""
        return line.role or (self.recipe.roles[0].name if self.recipe.roles else "")

    def _setups(self) -> dict[str, str]:
        runvars = Runvars(self.job.values)
        return {held.host: setup_key(held.role, runvars) for held in self.row.hosts}

    def _open_hosts(self) -> None:
        toolstack = self.job.values.get("toolstack") or DEFAULT_TOOLSTACK
        for held in self.row.hosts:
            self.hosts[held.role] = self.lab.machines.open(held.host, toolstack=toolstack)
            self._set_runvar(held.role, held.host)
            if not held.reused:
                # From here on nobody knows how the host stands, until this job has passed.
                with self.lab.sessions.begin() as session:
                    if flights.held(session, self.row.id, self.token):
                        host_rows.set_host_setup(session, held.host, None, None)

    def _close_hosts(self) -> None:
        for host in self.hosts.values():
            try:
                host.close()
            except Exception:
                log.exception("%s: a connection to it was not closed", host.name)

    def _set_runvar(self, name: str, value: str) -> None:
        with self.lab.sessions.begin() as session:
            if flights.held(session, self.row.id, self.token):
                flights.save_runvar(session, self.row.flight, self.row.job, name, _storable(value))

    def _values(self) -> Mapping[str, str]:
        with self.lab.reads() as session:
            return flights.load_job(session, self.row.flight, self.row.job).values

    def _save(self, step: StepResult) -> None:
        with self.lab.sessions.begin() as session:
            if not flights.held(session, self.row.id, self.token):
                self.hold.lost = True
                return
            flights.save_step(session, self.row.id, step)
            flights.add_event(
                session,
                kind="step",
                now=self.lab.clock(),
                flight=self.row.flight,
                data={"job": self.row.job, "testid": step.testid, "status": step.status.value},
            )

    def _batch(self, batch: Sequence[tuple[int, Line]], reused: set[str]) -> None:
        """Run lines side by side; each works on a host of its own."""
        if not batch[0][1].setup and not self.started:
            self._start()
        if len(batch) == 1:
            [(stepno, line)] = batch
            skip = line.setup and self._role(line) in reused
            self._note(self._line(stepno, line, skip=skip, attended=self.hosts.values()))
            return
        with ThreadPoolExecutor(len(batch), thread_name_prefix=self.job.id) as pool:
            running = [
                pool.submit(
                    self._line,
                    stepno,
                    line,
                    skip=line.setup and self._role(line) in reused,
                    attended=[self.hosts[self._role(line)]],
                )
                for stepno, line in batch
            ]
        for each in running:  # in the order of the recipe, whichever was quicker
            self._note(each.result())

    def _note(self, ended: StepResult) -> None:
        self.outcomes.append(ended.status)
        if ended.status not in (StepStatus.PASS, StepStatus.SKIPPED) and not self.reason:
            self.reason = f"{ended.testid}: {ended.reason}"

    def _line(self, stepno: int, line: Line, *, skip: bool, attended: Iterable[HostAccess]) -> StepResult:
        role = self._role(line)
        host = self.hosts[role] if role else None
        number = f"{stepno:02d}.{line.testid.replace('/', '-')}"
        log = StepLog(self.lab.logs / str(self.row.flight) / self.row.job / str(self.row.number) / f"{number}.log")
        step = StepResult(
            stepno=stepno,
            testid=line.testid,
            step=line.step,
            status=StepStatus.RUNNING,
            started=self.lab.clock(),
            host=host.name if host else None,
            log=str(log.path.relative_to(self.lab.logs)),
            console={access.name: (access.console.offset(), None) for access in self.hosts.values()},
        )
        try:
            if skip and host is not None:
                ended = replace(step, status=StepStatus.SKIPPED, reason=f"{host.name} is set up already, and reused")
                log.write(ended.reason)
            else:
                self._save(step)
                ended = self._run(step, line, log, attended)
        finally:
            log.close()
        spans = {name: (start, self._offset(name)) for name, (start, _end) in step.console.items()}
        self._save(replace(ended, finished=self.lab.clock(), console=spans))
        return ended

    def _start(self) -> None:
        """The hosts are set up; the recipe proper begins."""
        self.started = True
        with self.lab.sessions.begin() as session:
            if not flights.set_attempt_status(session, self.row.id, self.token, JobStatus.RUNNING):
                self.hold.lost = True
                return
            flights.set_job_status(
                session, self.row.flight, self.row.job, current=JobStatus.PREPARING, to=JobStatus.RUNNING
            )
            flights.add_event(
                session,
                kind="job",
                now=self.lab.clock(),
                flight=self.row.flight,
                data={"job": self.row.job, "status": JobStatus.RUNNING.value},
            )

    def _offset(self, name: str) -> int | None:
        return next((host.console.offset() for host in self.hosts.values() if host.name == name), None)

    def _run(self, step: StepResult, line: Line, log: StepLog, attended: Iterable[HostAccess]) -> StepResult:
        """Call the test case and turn how it ended into a result."""
        declared = find_step(line.step)
        context = self._context(line, log, declared, attended)
        try:
            # After an abort the evidence is still taken; nothing else starts. A host we lost is not touched at all.
            (self._still_held if line.always else self.hold.guard)()
            declared.function(context)
        except SkipStep as skipped:
            log.write(f"skipped: {skipped}")
            return replace(step, status=StepStatus.SKIPPED, reason=_one_line(skipped))
        except Exception as error:  # noqa: BLE001 - every exception has a meaning here
            return self._failure(step, line, log, error)
        return replace(step, status=StepStatus.PASS)

    def _context(self, line: Line, log: StepLog, declared: Step, attended: Iterable[HostAccess]) -> JobStep:
        role = self._role(line)
        runvars = Runvars(self._values(), on_set=self._set_runvar)
        deadline = time.monotonic() + declared.timeout_s

        def in_time() -> None:
            if time.monotonic() > deadline:
                raise StepFailure(f"{line.testid} was not done after {declared.timeout_s:.0f} s")

        # A step that sets a host up watches its machine itself; one that always runs must run on dead hosts, too.
        holding = self._still_held if line.always else self.hold.guard
        watching = _nothing if line.setup or line.always else self._watching()
        guard = either(holding, in_time, watching)
        for host in attended:
            host.attend(guard=guard, trace=log.command)
        return JobStep(
            lab=self.lab,
            job=self.job.id,
            line=line,
            role=role,
            hosts=self.hosts,
            runvars=runvars.restricted(readable_inputs(role)) if line.setup else runvars,
            guard=guard,
            step_log=log,
            failed=self._failed,
        )

    def _still_held(self) -> None:
        """Guard of lines that run after an abort, too."""
        if self.hold.lost:
            self.hold.guard()

    def _watching(self) -> Guard:
        """The guard of all hosts; one for the whole job, so that what happens between two steps is seen, too."""
        if self.watch is None:
            self.watch = HostWatch(self.hosts.values(), self._hardware)
        return self.watch.guard

    def _hardware(self, host: str, faults: Sequence[Fault]) -> None:
        with self.lab.sessions.begin() as session:
            note_hardware(session, self.lab, host, faults, during=f"{self.row.flight}.{self.row.job}")

    def _failure(self, step: StepResult, line: Line, log: StepLog, error: Exception) -> StepResult:
        if isinstance(error, StepFailure | HostDiedError) and self.watch is not None and not line.setup:
            try:
                self.watch.listen()
            except FatalConsoleError as panic:
                error = panic  # what looked like a failed command or a dead host is the end of Xen or dom0
        status = step_status_of(error, line.iffail)
        if isinstance(error, StepFailure) and not isinstance(error, FatalConsoleError) and self._machine_is_off():
            # The command failed because its host went away, not because Xen did wrong.
            error = HostDiedError(
                f"the machine went off during {line.testid}: {error.message}", evidence=error.evidence
            )
            status = StepStatus.BROKEN
        if status is StepStatus.BROKEN and isinstance(error, InfraError | StepFailure) and self.blames is None:
            self.blames = step.host  # what else breaks is no host's doing
            self.power_failure = _one_line(error) if isinstance(error, PowerError) else ""
        log.write(f"{status.value}: {error}")
        if not isinstance(error, LabError):
            log.write("".join(traceback.format_exception(error)))
        evidence = self._evidence(error) | self._denied(step)
        for label, text in evidence.items():
            log.write(f"--- {label}\n{text}")
        if status is StepStatus.ABORTED and isinstance(error, Aborted):
            self.reason = self.reason or error.message
        kept = {label: _storable(text) for label, text in evidence.items()}
        return replace(step, status=status, reason=_one_line(error), evidence=kept)

    def _denied(self, step: StepResult) -> dict[str, str]:
        """What FLASK denied on the hosts' consoles during a step: it may be why the step failed."""
        denied = {}
        for host in self.hosts.values():
            start, _end = step.console.get(host.name, (0, None))
            lines = [avc.line for avc in parse_avc(host.console.read(start).decode(errors="replace")) if avc.denied]
            if lines:
                denied[f"denied by XSM on {host.name}"] = "\n".join(lines)
        return denied

    def _machine_is_off(self) -> bool:
        try:
            return any(host.power.get() is False for host in self.hosts.values())
        except LabError:
            return False

    def _evidence(self, error: Exception) -> dict[str, str]:
        given = (error.evidence if isinstance(error, LabError) else None) or Evidence()
        pieces = {
            "host": given.host or "",
            "command": given.command or "",
            "exit status": "" if given.exit_status is None else str(given.exit_status),
            "output": given.output,
        }
        if given.console_tail:
            pieces["console"] = given.console_tail
        else:
            for host in self.hosts.values():
                pieces[f"console of {host.name}"] = console_tail(host)
        if not isinstance(error, LabError):
            pieces["traceback"] = "".join(traceback.format_exception(error))
        return {label: text for label, text in pieces.items() if text}


def _nothing() -> None:
    """Guard that lets everything go on."""


def _storable(text: str) -> str:
    """The end of a text, without what no database stores: NUL, and halves of surrogate pairs."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")[-EVIDENCE_LIMIT:]


def _one_line(error: BaseException) -> str:
    text = str(error) if isinstance(error, LabError | SkipStep) else f"{type(error).__name__}: {error}"
    return " ".join(_storable(clean(text)).split())[:500]
