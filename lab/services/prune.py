"""Prune: what nobody needs any more, and getting rid of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db.flights import finished_flights
from lab.flights.retention import Retention, outlived

GOING = ".going-"
"""What is being deleted is renamed to this first: then it is gone for everybody at once, and found again if we die."""


@dataclass(frozen=True, kw_only=True)
class Prunable:
    """A folder that may go: what it is, why, and how large (bytes)."""

    what: str
    why: str
    folder: Path
    size: int


def prunable(session: Session, lab: Lab, rule: Retention) -> Iterator[Prunable]:
    """The logs of flights that ended long ago, and what an interrupted pruning left behind."""
    now = lab.clock()
    for left in sorted(lab.logs.glob(f"{GOING}*")):
        yield Prunable(what="a rest", why="pruning it was interrupted", folder=left, size=_size(left))
    for number, intended, finished in finished_flights(session):
        folder = lab.logs / str(number)
        if outlived(intended, finished, now, rule) and folder.is_dir():
            why = f"{intended.value}, ended {(now - finished).days} days ago"
            yield Prunable(what=f"logs of flight {number}", why=why, folder=folder, size=_size(folder))


def prune(some: Iterable[Prunable]) -> int:
    """Delete these; returns how many bytes that frees."""
    freed = 0
    for one in some:
        going = one.folder
        if not going.name.startswith(GOING):
            going = going.with_name(f"{GOING}{going.name}")
            one.folder.rename(going)
        shutil.rmtree(going)
        freed += one.size
    return freed


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
