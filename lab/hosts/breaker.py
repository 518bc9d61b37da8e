"""The circuit breaker of a site: who does not answer gets nothing to do, is asked now and then, and recovers by itself.

Pure; times are seconds since the epoch. The three states are those of M. Nygard, "Release It!" (2007): *closed* lets
work through, *open* lets none through, *half-open* waits for the answer to one probe.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class Circuit(enum.Enum):
    """Whether a site gets work."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, kw_only=True)
class BreakerPolicy:
    """When a breaker opens and how often it probes.

    It opens after `failures` in a row. The first probe follows after `first_s`, each later one after twice the time
    before, at most `longest_s`; an answer must come within `answer_s`.
    """

    failures: int = 1
    first_s: float = 5.0
    longest_s: float = 60.0
    answer_s: float = 15.0


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """How a site stands: in this state `since` then, because of `reason`.

    `failures` counts those in a row while closed, and probes without an answer after that. `until` is when something
    is due: the next probe when open, the end of waiting for an answer when half-open.
    """

    state: Circuit = Circuit.CLOSED
    failures: int = 0
    since: float = 0.0
    until: float = 0.0
    reason: str = ""

    @property
    def lets_through(self) -> bool:
        """Whether the site gets new work."""
        return self.state is Circuit.CLOSED


CLOSED = Breaker()


def fail(breaker: Breaker, now: float, reason: str, policy: BreakerPolicy) -> Breaker:
    """Work at the site was not taken up. While the site is shut this tells nothing new."""
    if breaker.state is not Circuit.CLOSED:
        return breaker
    failures = breaker.failures + 1
    if failures < policy.failures:
        return replace(breaker, failures=failures, reason=reason)
    return Breaker(state=Circuit.OPEN, since=now, until=now + policy.first_s, reason=reason)


def answer(breaker: Breaker, now: float) -> Breaker:
    """A worker of the site took something up: all is well, whatever was before."""
    return breaker if breaker == CLOSED or _untroubled(breaker) else replace(CLOSED, since=now)


def _untroubled(breaker: Breaker) -> bool:
    return breaker.state is Circuit.CLOSED and not breaker.failures


def wait(breaker: Breaker, now: float, policy: BreakerPolicy, *, alive: bool = False) -> tuple[Breaker, bool]:
    """Let time pass: how the site stands now, and whether a probe is to be sent to it.

    A site of which a worker gives signs of life (`alive`) is probed every `first_s`, whatever it did before. A clock
    that was set back delays no probe by more than the time between two.
    """
    match breaker.state:
        case Circuit.CLOSED:
            return breaker, False
        case Circuit.HALF_OPEN:
            if now < breaker.until <= now + policy.answer_s:
                return breaker, False
            failures = breaker.failures + 1
            longest = policy.first_s if alive else policy.longest_s
            pause = min(longest, policy.first_s * 2.0 ** min(failures, 30))
            return replace(breaker, state=Circuit.OPEN, failures=failures, until=now + pause), False
        case Circuit.OPEN:
            # A pause longer than it may be by now is over: somebody came to life, or the clock was set back.
            longest = policy.first_s if alive else policy.longest_s
            if now < breaker.until <= now + longest:
                return breaker, False
            return replace(breaker, state=Circuit.HALF_OPEN, until=now + policy.answer_s), True


def told(site: str, breaker: Breaker) -> str:
    """Why a site gets no work, in one line; empty when it does."""
    if breaker.lets_through:
        return ""
    doing = "waiting for its answer" if breaker.state is Circuit.HALF_OPEN else "it is asked again soon"
    return f"site {site} does not answer ({breaker.reason}); {doing}"
