"""What guests under XSM do, and what is done to them: create, save, migrate, pause, ring each other, share a page.

A deed raises `StepFailure` as it is refused. What it returns is called afterwards, and says whether it was really done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from lab.errors import StepFailure
from lab.flights.steps import StepContext
from lab.flights.xsm import Expectation, type_of
from testcases._flask import CONTEXT, Flask
from testcases._guests import READY, SCRATCH, Guest, check_survived, guest_config
from testcases._waiting import until
from testcases.guest_start import READY_LIMIT_S

SAVED: Final = f"{SCRATCH}/xsm.save"
WORDS: Final = ("asked", "answered")
"""What two guests write into a page that they share."""

Verify = Callable[[], None]


def parties(expected: Expectation) -> Mapping[str, str]:
    """The guests an expectation is about, by name, and their types: its guest first; two of one type are two guests."""
    named = {f"xsm-{expected.guest}": expected.guest}
    if expected.peer:
        named[f"xsm-{expected.peer}{'-2' if expected.peer == expected.guest else ''}"] = expected.peer
    return named


class Guests:
    """The guests of one proof, by name."""

    def __init__(self, ctx: StepContext, flask: Flask) -> None:
        self.ctx, self.host, self.flask = ctx, flask.host, flask
        self.running: dict[str, Guest] = {}
        files = ctx.guest_files(ctx.runvars.require("guest_image"))
        config = guest_config(ctx.runvars, files, job=ctx.job, host_address=flask.host.address)
        # no network: what the guests may do to each other is what they are here for
        self.config = replace(config, bridge=None, mac=None)

    def start(self, name: str, label: str, build_label: str = "") -> None:
        """Create a guest with a label."""
        options = {"seclabel": CONTEXT.format(label)}
        if build_label:
            options["init_seclabel"] = CONTEXT.format(build_label)
        self.host.toolstack.create(replace(self.config, name=name, options=options))
        self.running[name] = Guest(self.ctx, self.host, name, alone=False)

    def ready(self, name: str, label: str) -> None:
        """The guest lives, and its label is what it was given."""
        self.running[name].console.wait_for(READY, timeout_s=READY_LIMIT_S[self.config.kind])
        self.running[name].life()
        self.has_label(name, label)
        self.ctx.log(f"{name} runs, and is labelled so")

    def has_label(self, name: str, label: str) -> None:
        """`StepFailure` when the guest is labelled otherwise."""
        seen = self.flask.labels().get(name, "none")
        if type_of(seen) != label:
            raise self.flask.failure(f"{name} should have the label {label}, but has {seen}")

    def end(self, name: str) -> None:
        """Destroy the guest."""
        self.host.toolstack.destroy(name)
        del self.running[name]

    def do(self, expected: Expectation) -> Verify:
        """Do what the expectation is about."""
        return _DEEDS[expected.does](self, expected)

    def create(self, expected: Expectation) -> Verify:
        """The guest is created."""
        ((name, label),) = parties(expected).items()
        self.start(name, label, expected.build_label)
        return lambda: self.ready(name, label)

    def save(self, expected: Expectation) -> Verify:
        """Dom0 saves the guest to a file; done when it goes on where it was after its restore."""
        guest = self._guest(expected)
        life = guest.life()
        try:
            self.host.toolstack.save(guest.name, SAVED)
        except StepFailure:
            self.host.shell.run("rm", "-f", SAVED, check=False)
            raise

        def restored() -> None:
            self.host.toolstack.restore(SAVED)
            self.host.shell.run("rm", "-f", SAVED)
            check_survived(life, [guest], "save and restore")
            self.has_label(guest.name, expected.guest)

        return restored

    def migrate(self, expected: Expectation) -> Verify:
        """Dom0 migrates the guest live to its own host."""
        guest = self._guest(expected)
        life = guest.life()
        self.host.toolstack.migrate_local(guest.name)

        def arrived() -> None:
            check_survived(life, [guest], "local migration")
            self.has_label(guest.name, expected.guest)

        return arrived

    def pause(self, expected: Expectation) -> Verify:
        """Dom0 stops the guest's processors for a moment."""
        guest = self._guest(expected)
        life = guest.life()
        self.host.shell.run("xl", "pause", guest.name)
        self.host.shell.run("xl", "unpause", guest.name)

        def goes_on() -> None:
            check_survived(life, [guest], "a pause")

        return goes_on

    def event_channel(self, expected: Expectation) -> Verify:
        """The peer offers an event channel to the guest, which binds to it and rings; done when the peer hears it."""
        guest, peer = self._pair(expected)

        def heard() -> tuple[str, ...] | None:
            lines = peer.shell("cat /events")
            return None if lines in ((), ("0",)) else lines  # it may be just about to be written

        try:
            port = _told(peer, f"guest-comms port {guest.require_listed().domid}", "port")
            _told(guest, f"guest-comms ring {peer.require_listed().domid} {port}", "rung")
            rings = until(self.ctx, heard, limit_s=10)
        finally:
            _let_go(peer)

        def rung() -> None:
            if rings != ("1",):
                raise self.flask.failure(f"{peer.name} should hear {guest.name} ring once, but heard {rings}")

        return rung

    def grant(self, expected: Expectation) -> Verify:
        """The peer grants the guest a page, which maps it; done when each has read what the other wrote."""
        guest, peer = self._pair(expected)
        asked, answered = WORDS
        try:
            reference = _told(peer, f"guest-comms page {guest.require_listed().domid} {asked}", "page")
            found = _told(guest, f"guest-comms map {peer.require_listed().domid} {reference} {answered}", "found")
            seen = until(self.ctx, lambda: peer.shell("cat /granted") == (answered,) or None, limit_s=10)
        finally:
            _let_go(peer)

        def shared() -> None:
            if found != asked or not seen:
                raise self.flask.failure(f"{guest.name} should share {peer.name}'s page, but read {found!r} there")

        return shared

    def _guest(self, expected: Expectation) -> Guest:
        return self.running[next(iter(parties(expected)))]

    def _pair(self, expected: Expectation) -> tuple[Guest, Guest]:
        guest, peer = (self.running[name] for name in parties(expected))
        return guest, peer


_DEEDS: Final[Mapping[str, Callable[[Guests, Expectation], Verify]]] = {
    "create": Guests.create,
    "save": Guests.save,
    "migrate": Guests.migrate,
    "pause": Guests.pause,
    "event-channel": Guests.event_channel,
    "grant": Guests.grant,
}


def _told(guest: Guest, command: str, before: str) -> str:
    """The word that a command in the guest prints behind `before`; `StepFailure` when it was denied."""
    lines = guest.shell(command)
    for line in lines:
        name, _, rest = line.partition(" ")
        if name == before:
            return rest
    raise guest.failure(f"`{command}` should print {before!r}, but said {lines!r}"[:300])


def _let_go(guest: Guest) -> None:
    """End what guest-comms has left behind to hold what it offers."""
    guest.console.command("sh", "killall guest-comms; sleep 0.2")
