"""A real process of a lab whose machines are fakes: `python tests/fake_lab.py HOSTS worker`, or `… HOSTS leader`.

The lab's file, steps and recipes are those of `factories`; settings, database, broker and bells are the real ones.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from factories import a_host, make_lab, trial_catalogue

import lab.bootstrap
from lab.broker import CeleryDispatch
from lab.context import Lab
from lab.settings import Settings


def fake_lab(settings: Settings, count: int) -> Lab:
    """A lab of `count` hosts h0, h1, …"""
    made = make_lab(settings.database, settings.home, [a_host(f"h{number}") for number in range(count)])
    engine = made.sessions.kw["bind"]
    return replace(
        made,
        settings=settings,
        bell=lab.bootstrap.make_bell(settings, engine),
        dispatch=CeleryDispatch(settings, made.reads),
        clock=lab.bootstrap.now,
    )


def main(count: str, *command: str) -> None:
    lab.bootstrap.bootstrap = lambda settings: fake_lab(settings, int(count))  # type: ignore[assignment]
    from lab.cli import main as cli

    with trial_catalogue():
        cli(list(command))


if __name__ == "__main__":
    main(*sys.argv[1:])
