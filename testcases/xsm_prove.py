"""The step xsm-prove."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lab.errors import ConfigError, StepFailure
from lab.flights.steps import StepContext, step
from lab.flights.xsm import Avc, Expectation, XsmPolicy, denials
from testcases._flask import Flask, shown, unexpected
from testcases._guests import Life, check_survived
from testcases._xsm_deeds import Guests, Verify, parties


@step("xsm-prove", timeout_s=900)
def xsm_prove(ctx: StepContext) -> None:
    """What the policy forbids is denied, with FLASK's own line to show for it, and what it allows works.

    Every guest's label is read back. Who was denied something lives on as before. Where the policy's test asks for it,
    the same deed is then done without enforcement, so that it was the policy that stopped it.
    """
    policy = ctx.xsm_policy(ctx.runvars.require("xsm_policy"))
    proof, expectations = _Proof(ctx, policy), policy.test.expectations
    for number, expected in enumerate(expectations, start=1):
        proof.check(expected)
        ctx.log(f"{number} of {len(expectations)}, as expected: {expected}")
        proof.dismiss(expectations[number:])
    proof.reset_booleans()
    ctx.runvars.set("xsm_proved", len(expectations))


class _Proof:
    """The expectations of one policy on one host; guests live as long as one of them needs them."""

    def __init__(self, ctx: StepContext, policy: XsmPolicy) -> None:
        self.ctx, self.policy = ctx, policy
        self.flask = Flask(ctx.host())
        self.guests = Guests(ctx, self.flask)
        self.defaults = self.flask.booleans()
        self.booleans = dict(self.defaults)
        self.loosened = False
        self.kept: list[str] = []

    def check(self, expected: Expectation) -> None:
        """`StepFailure` unless it is as expected."""
        self._arrange(expected)
        lives = {
            name: self.guests.running[name].life() for name in parties(expected) if name in self.guests.running
        }
        refusal, verify, lines = self._attempt(expected)
        match expected.verdict:
            case "denied":
                self._check_denied(expected, refusal, lines)
                self._check_unharmed(expected, lives)
                if expected.contrast:
                    self._contrast(expected)
            case "unknown-label":
                self._check_unknown(expected, refusal, lines)
                self._check_unharmed(expected, lives)
            case _:
                if refusal is not None:
                    raise self._failure(f"{expected}, but it was refused: {refusal.message}", lines, refusal)
                self._check_done(expected, verify)

    def _attempt(self, expected: Expectation) -> tuple[StepFailure | None, Verify, tuple[Avc, ...]]:
        """Do it: how it was refused (None: it was not), how to see that it was done, what FLASK logged meanwhile."""
        self.flask.mark()
        refusal: StepFailure | None = None
        verify: Verify = _nothing
        try:
            verify = self.guests.do(expected)
        except StepFailure as error:
            refusal = error
        lines = self.flask.since_mark()
        self.kept += [f"# {expected}{'' if refusal is None else f'; {refusal.message}'}", *(avc.line for avc in lines)]
        self.ctx.save("avc.txt", "\n".join(self.kept).encode())
        return refusal, verify, lines

    def _check_done(self, expected: Expectation, verify: Verify) -> None:
        try:
            verify()
        except StepFailure as error:
            raise self._failure(f"{expected}, but {error.message}", self.flask.since_mark(), error) from error
        self._check_no_denial(f"{expected}", self.flask.since_mark())

    def _check_denied(self, expected: Expectation, refusal: StepFailure | None, lines: tuple[Avc, ...]) -> None:
        if refusal is None:
            raise self._failure(f"{expected}, but it was done", lines)
        logged = denials(lines)
        if missing := [access for access in expected.avc if access not in logged]:
            raise self._failure(f"{expected}; it was refused, but FLASK logged no {shown(missing)}", lines, refusal)
        if more := unexpected(access for access in logged if access not in (*expected.avc, *expected.also)):
            raise self._failure(f"{expected}; FLASK denied more than expected: {shown(more)}", lines, refusal)

    def _check_unknown(self, expected: Expectation, refusal: StepFailure | None, lines: tuple[Avc, ...]) -> None:
        if refusal is None:
            raise self._failure(f"{expected}, but a guest was created with it", lines)
        if "seclabel" not in _said(refusal):
            raise self._failure(f"{expected}, but it failed for another reason: {refusal.message}", lines, refusal)

    def _check_no_denial(self, what: str, lines: tuple[Avc, ...]) -> None:
        if denied := unexpected(denials(lines)):
            raise self._failure(f"{what}, but FLASK denied {shown(denied)}", lines)

    def _check_unharmed(self, expected: Expectation, lives: Mapping[str, Life]) -> None:
        """Who was denied something goes on as before, and who was not to be created is not there."""
        for name, life in lives.items():
            check_survived(life, [self.guests.running[name]], f"{expected.does}, denied,")
        there = {guest.name for guest in self.ctx.host().toolstack.guests()}
        if left := there & (parties(expected).keys() - lives.keys()):
            raise self._failure(f"{expected}, but a domain {', '.join(left)} is left", ())

    def _contrast(self, expected: Expectation) -> None:
        self.flask.enforce(on=False)
        refusal, verify, lines = self._attempt(expected)
        if refusal is not None:
            raise self._failure(
                f"{expected}; without enforcement it should be done, but: {refusal.message}", lines, refusal
            )
        logged = denials(lines)
        if missing := [access for access in expected.avc if access not in logged]:
            raise self._failure(f"{expected}; without enforcement, too, FLASK should log {shown(missing)}", lines)
        verify()
        self.flask.enforce(on=True)
        if expected.does == "create":
            self.guests.end(next(iter(parties(expected))))

    def _arrange(self, expected: Expectation) -> None:
        """The policy, its booleans and the guests that an expectation is about; none of it may be denied."""
        if expected.loosened != self.loosened:
            wanted = self.policy.loosened if expected.loosened else self.policy.binary
            if wanted is None:
                raise ConfigError(f"policy {self.policy.test.name} has no loosened.te, but expects something of it")
            self.flask.load(wanted)
            self.loosened, self.booleans = expected.loosened, dict(self.flask.booleans())
        if unknown := expected.booleans.keys() - self.booleans.keys():
            raise ConfigError(f"policy {self.policy.test.name} has no boolean {', '.join(sorted(unknown))}")
        self._set_booleans({**self.defaults, **expected.booleans})
        if expected.does == "create":
            for name in parties(expected).keys() & self.guests.running.keys():
                self.guests.end(name)
            return
        new = {name: label for name, label in parties(expected).items() if name not in self.guests.running}
        if not new:
            return
        self.flask.mark()
        for name, label in new.items():
            self.guests.start(name, label, expected.build_label if label == expected.guest else "")
        for name, label in new.items():
            self.guests.ready(name, label)
        self._check_no_denial(f"{' and '.join(new)} should start", self.flask.since_mark())

    def dismiss(self, later: Iterable[Expectation]) -> None:
        """End the guests that none of the later expectations needs."""
        needed = {name for expected in later for name in parties(expected)}
        for name in [name for name in self.guests.running if name not in needed]:
            self.guests.end(name)

    def reset_booleans(self) -> None:
        """Leave the policy's booleans as they were."""
        self._set_booleans(self.defaults)

    def _set_booleans(self, wanted: Mapping[str, bool]) -> None:
        for name, value in wanted.items():
            if self.booleans.get(name) is not value:
                self.flask.set_boolean(name, value)
                self.booleans[name] = value

    def _failure(self, message: str, lines: tuple[Avc, ...], refusal: StepFailure | None = None) -> StepFailure:
        return self.flask.failure(message, lines, output=_said(refusal))


def _said(refusal: StepFailure | None) -> str:
    return refusal.evidence.output if refusal is not None and refusal.evidence is not None else ""


def _nothing() -> None:
    """What was not done cannot be verified."""
