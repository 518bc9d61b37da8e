"""In which order the last few requests should begin so that all is done soonest: the best of several orders. Pure.

Which rule orders best depends on the case: the longest first, those that need most hosts, those that few hosts can
serve, or the longest with some chance. Each is tried by projecting where it leads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from lab.hosts.durations import Estimate
from lab.hosts.request import Request

TRIED: Final = 24
"""Orders that are tried with some chance."""

Key = Callable[[Request], float]


def best_order(
    requests: Sequence[Request],
    expected: Callable[[Request], Estimate],
    able: Callable[[Request], int],
    done_after: Callable[[Mapping[str, float]], float],
) -> Mapping[str, float]:
    """The order after which all is done soonest: its places, all below 0, by id.

    `able` tells how many hosts could serve a request, `done_after` what comes of an order.
    """
    by_id = sorted(requests, key=lambda request: (request.order, request.id))
    best: tuple[float, Mapping[str, float]] | None = None
    for key in _keys(by_id, expected, able):
        places = {request.id: place - float(len(by_id)) for place, request in enumerate(sorted(by_id, key=key))}
        end = done_after(places)
        if best is None or end < best[0]:
            best = (end, places)
    return best[1] if best else {}


def _keys(
    requests: Sequence[Request], expected: Callable[[Request], Estimate], able: Callable[[Request], int]
) -> Iterator[Key]:
    length = {request.id: expected(request).p50_s for request in requests}
    size = {request.id: len(request.roles) for request in requests}
    longest = max(length.values(), default=0.0) + 1.0
    few = {request.id: able(request) for request in requests}
    yield lambda one: -length[one.id]
    yield lambda one: -length[one.id] * size[one.id]
    yield lambda one: -size[one.id] * longest - length[one.id]
    yield lambda one: few[one.id] * longest - length[one.id]
    for number in range(TRIED):
        chance = random.Random(number)  # noqa: S311 - any numbers will do, if they are always the same
        bent = {
            one: -length[one] * size[one] ** chance.choice([0, 0.5, 1]) * chance.uniform(0.5, 1.5) for one in length
        }
        yield lambda one, bent=bent: bent[one.id]  # type: ignore[misc]
