"""Which hosts are scarce: those for which more work waits that can run nowhere else than there is for the others. Pure.

On scarce hosts, work that could run elsewhere gives way. Were it first come, first served, the scarce hosts would spend
part of their time on it, and in the end all would wait for what can run on them alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from lab.hosts.fleet import Fleet
from lab.hosts.request import Kind, Request

NOTHING: frozenset[str] = frozenset()


class Scarcity:
    """Which hosts each kind of request leaves to others; what depends on the hosts alone is remembered."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._known: tuple[int, AbstractSet[Kind]] = (-1, frozenset())
        self._able: dict[Kind, frozenset[str]] = {}
        self._within: dict[frozenset[str], list[Kind]] = {}

    def scarce(self, samples: Mapping[Kind, Request], work: Mapping[Kind, float]) -> list[frozenset[str]]:
        """Sets of hosts for which more work (in host-seconds) waits that can run on no others than for the rest."""
        self._look(samples)
        total, count = sum(work[kind] for kind in self._able), len(self._fleet.usable)
        found = []
        for names, kinds in self._within.items():
            if 0 < len(names) < count:
                inside = sum(work[kind] for kind in kinds)
                if inside / len(names) > (total - inside) / (count - len(names)):
                    found.append(names)
        return found

    def wanted(self, samples: Mapping[Kind, Request], work: Mapping[Kind, float]) -> dict[str, float]:
        """How much work waits for each free host, each kind of it spread over all that could do it: 1 is the most."""
        self._look(samples)
        free = self._fleet.free
        each = [(able, work[kind] / len(able)) for kind, able in self._able.items() if able]
        sums = {name: math.fsum(some for able, some in each if name in able) for name in free} if len(free) > 1 else {}
        most = max(sums.values(), default=0.0)
        return {name: round(value / most, 3) for name, value in sums.items()} if most > 0 else {}

    def left_to_others(self, kind: Kind, scarce: list[frozenset[str]]) -> frozenset[str]:
        """The scarce hosts which those of a kind, who can run on others, leave to those who cannot."""
        able = self._able.get(kind, NOTHING)
        spared = [names for names in scarce if not able <= names]
        return NOTHING.union(*spared) if spared and not able <= NOTHING.union(*spared) else NOTHING

    def within(self, names: frozenset[str]) -> list[Kind]:
        """The kinds that can run on these hosts alone."""
        return self._within[names]

    def _look(self, samples: Mapping[Kind, Request]) -> None:
        if self._known == (self._fleet.generation, samples.keys()):
            return
        usable = self._fleet.usable.keys()
        self._able = {
            kind: frozenset()
            .union(*(self._fleet.able(role.requirement) for role in request.roles))
            .intersection(usable)
            for kind, request in samples.items()
            if request.roles
        }
        sets = set(self._able.values())
        self._within = {names: [kind for kind, able in self._able.items() if able <= names] for names in sets}
        self._known = (self._fleet.generation, frozenset(samples))
