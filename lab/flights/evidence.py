"""Which failures of a flight are new, by counting (policy `evidence`). Pure.

One pass of the same revision does not prove that a failure is a fluke, nor one failure on the baseline that it is old:
both only count. Two models are compared for each test. *Old*: the test fails at the rate at which it failed before, a
rate of its own for each class of hosts, with a Beta prior. *New*: at the revision in question it fails at another rate,
with a prior of its own. The probability of what was seen under each is a product of Beta functions (the Beta-binomial
distribution), and Bayes' rule gives the probability that the failure is new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import exp, lgamma, log
from types import MappingProxyType
from typing import Final

from lab.flights.past_results import FlightRun, JobRun, Past, Signature, StepRun
from lab.flights.regression import TestPattern, Waiver, job_finding, let_off, plain_finding, verdict
from lab.flights.verdict import Finding, Kind, Verdict

POLICY: Final = "evidence"
MOST_RETESTS: Final = 20
"""So many further passes are considered when it is said how many would clear a failure."""


@dataclass(frozen=True)
class Beta:
    """A Beta distribution of a rate of failure: as if `fails` and `passes` had been seen. Both are above 0."""

    fails: float
    passes: float

    def log_likelihood(self, fails: int, passes: int) -> float:
        """The logarithm of the probability of a certain sequence of so many failures and passes."""
        return _log_beta(self.fails + fails, self.passes + passes) - _log_beta(self.fails, self.passes)

    def after(self, fails: int, passes: int) -> Beta:
        """The distribution once so many have been seen."""
        return Beta(self.fails + fails, self.passes + passes)

    @property
    def mean(self) -> float:
        """The expected rate."""
        return self.fails / (self.fails + self.passes)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


@dataclass(frozen=True, kw_only=True)
class EvidencePolicy:
    """When a failure is called new. `policies/evidence.toml` says the same with comments.

    `suspicion` is the probability that a failure is new before anything else is known. A test that is sound fails now
    and then, at a rate from `flake`; one that the change broke fails at a rate from `broken`. From `new_at` on a
    failure is a regression; below `old_at` it does not block; between them it blocks, and a retest would tell.
    """

    suspicion: float = 0.2
    flake: Beta = Beta(0.5, 19.5)
    broken: Beta = Beta(2.0, 1.0)
    new_at: float = 0.9
    old_at: float = 0.5


@dataclass(frozen=True)
class Counts:
    """How often a test failed and passed."""

    fails: int = 0
    passes: int = 0

    @property
    def runs(self) -> int:
        """How often it came to a verdict."""
        return self.fails + self.passes

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.fails + other.fails, self.passes + other.passes)


@dataclass(frozen=True, kw_only=True)
class TestRuns:
    """The runs of a test by class of hosts: `before` with revisions that were good, `now` with the one in question."""

    __test__ = False

    before: Mapping[str, Counts] = field(default_factory=lambda: MappingProxyType({}))
    now: Mapping[str, Counts] = field(default_factory=lambda: MappingProxyType({}))

    def total(self, which: Mapping[str, Counts]) -> Counts:
        """On all hosts together."""
        return sum(which.values(), Counts())

    def with_passes(self, more: int, host_class: str) -> TestRuns:
        """As if it had passed `more` times more."""
        now = dict(self.now)
        now[host_class] = now.get(host_class, Counts()) + Counts(passes=more)
        return replace(self, now=now)


def new_probability(runs: TestRuns, policy: EvidencePolicy) -> float:
    """The probability that the test fails at another rate now than before, given all runs; `suspicion` without any."""
    old = new = 0.0
    for host_class, now in runs.now.items():
        before = runs.before.get(host_class, Counts())
        old += policy.flake.after(before.fails, before.passes).log_likelihood(now.fails, now.passes)
        new += policy.broken.log_likelihood(now.fails, now.passes)
    odds = log(policy.suspicion / (1 - policy.suspicion)) + new - old
    return 1 / (1 + exp(-odds)) if odds > -700 else 0.0


def passes_to_clear(runs: TestRuns, policy: EvidencePolicy, host_class: str) -> int | None:
    """How many further passes (on hosts of the class) would bring the failure below `old_at`; None: too many."""
    for more in range(MOST_RETESTS + 1):
        if new_probability(runs.with_passes(more, host_class), policy) < policy.old_at:
            return more
    return None


def judge_by_evidence(
    run: FlightRun,
    past: Past,
    runs: Mapping[Signature, TestRuns],
    *,
    policy: EvidencePolicy | None = None,
    allow: Iterable[TestPattern] = (),
    waived: Collection[Waiver] = (),
) -> Verdict:
    """The verdict on a flight; `runs` has every test of it that did not pass, with those of the flight itself."""
    judge = _Judge(past, runs, policy or EvidencePolicy(), tuple(allow), frozenset(waived))
    return verdict(run, past, judge.of(run), policy=POLICY)


class _Judge:
    def __init__(
        self,
        past: Past,
        runs: Mapping[Signature, TestRuns],
        policy: EvidencePolicy,
        allow: tuple[TestPattern, ...],
        waived: frozenset[Waiver],
    ) -> None:
        self.past = past
        self.runs = runs
        self.policy = policy
        self.allow = allow
        self.waived = waived

    def of(self, run: FlightRun) -> list[Finding]:
        found = []
        for job in run.jobs:
            if (whole := job_finding(job)) is not None:
                found.append(self.let_off(whole))
            found += [self.let_off(self.step(job, step)) for step in job.bad]
        return found

    def let_off(self, finding: Finding) -> Finding:
        return let_off(finding, self.allow, self.waived)

    def step(self, job: JobRun, step: StepRun) -> Finding:
        if (plain := plain_finding(job, step, self.past)) is not None:
            return plain
        runs = self.runs.get((job.name, step.testid), TestRuns(now={step.host: Counts(fails=1)}))
        before, now = runs.total(runs.before), runs.total(runs.now)
        probability = new_probability(runs, self.policy)
        seen = (
            f"with this revision it failed {now.fails} of {now.runs} times, with good ones before "
            f"{before.fails} of {before.runs} (expected: {self._expected(runs):.1%})"
        )
        reasons = [seen, *self._classes(runs), f"the failure is new with a probability of {probability:.3f}"]
        if probability >= self.policy.old_at:
            kind, blocks = Kind.REGRESSION, True
            reasons.append(self._would_clear(runs, step.host))
        else:
            kind, blocks = (Kind.LIKE if before.fails else Kind.HEISENBUG), False
            reasons.append(f"from a probability of {self.policy.old_at:g} on it would block")
        reference = self.past.baseline[0] if self.past.baseline else None
        return Finding(
            job=job.name, testid=step.testid, stepno=step.stepno, status=step.status, kind=kind, blocks=blocks,
            note=self._note(kind, probability, reference), ref_flight=reference, reasons=tuple(reasons),
        )  # fmt: skip

    def _note(self, kind: Kind, probability: float, reference: int | None) -> str:
        sure = f"P(new)={probability:.2f}"
        against = f" vs. {reference}" if reference is not None else ""
        match kind:
            case Kind.REGRESSION if probability >= self.policy.new_at:
                return f"REGR.{against} {sure}"
            case Kind.REGRESSION:
                return f"perhaps REGR.{against} {sure}"
            case Kind.LIKE:
                return f"failed before {sure}"
            case _:
                return f"comes and goes {sure}"

    def _expected(self, runs: TestRuns) -> float:
        before = runs.total(runs.before)
        return self.policy.flake.after(before.fails, before.passes).mean

    @staticmethod
    def _classes(runs: TestRuns) -> list[str]:
        if len(runs.before.keys() | runs.now.keys()) < 2:
            return []
        lines = []
        for name in sorted(runs.before.keys() | runs.now.keys()):
            now, before = runs.now.get(name, Counts()), runs.before.get(name, Counts())
            lines.append(
                f"on {name or 'unknown hosts'}: {now.fails} of {now.runs} now, {before.fails} of {before.runs} before"
            )
        return lines

    def _would_clear(self, runs: TestRuns, host: str) -> str:
        # the class where the failure was seen: passes elsewhere say less about it
        failing = max(runs.now, key=lambda name: (runs.now[name].fails, name == host, name), default=host)
        more = passes_to_clear(runs, self.policy, failing)
        if more is None:
            return f"not even {MOST_RETESTS} further passes of this revision would clear it"
        return f"{more} further passes of this revision on such hosts would clear it"
