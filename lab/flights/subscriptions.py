"""Who wants to be told of what: by branch, by job, and only when something begins to fail, or is well again. Pure."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Collection
from dataclasses import dataclass

from lab.flights.past_results import Signature


class Wanted(enum.Enum):
    """What a subscription is for."""

    #: every report
    ALL = "all"
    #: a test begins to block that did not in the branch's last decision
    FIRST_FAIL = "first-fail"
    #: a test that blocked does not any more
    FIXED = "fixed"
    #: how all branches stand, once in a while
    DIGEST = "digest"


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """Somebody's wish; `branch` and `job` are globs."""

    id: int
    address: str
    wanted: Wanted
    branch: str = "*"
    job: str = "*"

    def concerns(self, branch: str, now: Collection[Signature], before: Collection[Signature]) -> bool:
        """Whether a report is to be sent: of a branch in which these tests block now, and those did before."""
        if not fnmatch.fnmatchcase(branch, self.branch):
            return False
        if self.wanted in (Wanted.ALL, Wanted.DIGEST):
            return self.wanted is Wanted.ALL
        news = set(now) - set(before) if self.wanted is Wanted.FIRST_FAIL else set(before) - set(now)
        return any(fnmatch.fnmatchcase(job, self.job) for job, _ in news)
