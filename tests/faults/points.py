"""Points at which a process may be killed: before and after every change of state that it makes.

Nothing in the program knows of them. A process under test reports each commit that changes the state of a flight, a
job, an attempt, a step, a host or a lease, and each switching of a machine, to whoever drives the test, and goes on
when it is told to. So no change of state can be forgotten: a new one is a new point by itself.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Engine, event

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Write:
    """One row that a transaction has written: its table, the verb, and the values by their columns' names."""

    table: str
    verb: str
    values: Mapping[str, Any]

    def named(self) -> str:
        """What it means for a lab; empty when it is no change of state."""
        made = self.verb == "INSERT"
        match self.table:
            case "jobs":
                return f"job {self.values['status']}" if "status" in self.values and not made else ""
            case "steps":  # without its number: all that run, if any
                return f"step {self.values['status']}" if {"status", "stepno"} <= self.values.keys() else ""
            case "flights":
                return "flight made" if made else "flight closed" if "blessing" in self.values else ""
            case "attempts":
                if made:
                    return "attempt made"
                if "status" in self.values:
                    return f"attempt {self.values['status']}"
                return "attempt claimed" if self.values.get("worker") else "hold renewed"
            case "hosts":
                return f"host {self.values['state']}" if "state" in self.values and not made else ""
            case "leases":
                return "lease begun" if made else "lease ended"
            case "bookings":
                return "booking made" if made else f"booking {self.values['state']}" if "state" in self.values else ""
            case "changes":
                return "marks taken" if self.verb == "DELETE" else ""
            case "waits":
                return "waits told"
        return ""


class Reach(Protocol):
    """Reports that a process is at `point`, `phase` (before or after) what it is called after; may not return."""

    def __call__(self, point: str, phase: str, rows: Iterable[Write] = ()) -> None: ...


class Driver:
    """The connection of one process to whoever drives the test; from any thread, one report at a time."""

    def __init__(self, path: str, role: str) -> None:
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._lines = self._socket.makefile("r")
        self._send({"role": role, "pid": os.getpid()})

    def reach(self, point: str, phase: str, rows: Iterable[Write] = ()) -> None:
        """Report a point, and go on when told to. A process whose driver is gone ends."""
        said = [[row.table, row.values] for row in rows]
        with self._lock:
            try:
                self._send({"point": point, "phase": phase, "rows": said})
                told = self._lines.readline()
            except OSError:
                told = ""
        if not told:
            os._exit(70)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._socket.sendall(json.dumps(message, default=str).encode() + b"\n")


def _keys(table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(f"{table}_"): value for name, value in values.items() if name.startswith(f"{table}_")}


_WRITES = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM) (\w+)")
_QUIET = frozenset({"hold renewed", "marks taken", "waits told"})


def watch(engine: Engine, reach: Reach) -> None:
    """Call `reach` before and after each commit of the engine that changes a state."""
    written: dict[int, list[Write]] = {}

    @event.listens_for(engine, "before_cursor_execute")
    def _execute(connection: Any, _cursor: Any, statement: str, _given: Any, context: Any, _many: bool) -> None:
        if found := _WRITES.match(statement):
            rows = written.setdefault(id(connection.connection.dbapi_connection), [])
            for values in (context and context.compiled_parameters) or [{}]:
                # an UPDATE names the keys of its row after the table: steps_stepno
                rows.append(Write(found[2], found[1].split()[0], {**_keys(found[2], values), **values}))

    dialect: Any = engine.dialect
    commit, rollback = dialect.do_commit, dialect.do_rollback

    def do_commit(connection: Any) -> None:
        rows = written.pop(id(connection.dbapi_connection), [])
        names = {name for row in rows if (name := row.named())}
        point = ", ".join(sorted(names - _QUIET or names))
        if point:
            reach(point, BEFORE, rows)
        commit(connection)
        if point:
            reach(point, AFTER, rows)

    def do_rollback(connection: Any) -> None:
        written.pop(id(connection.dbapi_connection), None)
        rollback(connection)

    dialect.do_commit, dialect.do_rollback = do_commit, do_rollback
