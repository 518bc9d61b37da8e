"""The command line: one file per noun; each command parses, calls one service, and renders."""

from __future__ import annotations

import sys
from typing import Any

import click

from lab.cli import (
    bisect,
    blockage,
    boot_service,
    build,
    db,
    doctor,
    flight,
    gate,
    health,
    host,
    image,
    job,
    lease,
    mail,
    matrix,
    plan,
    prune,
    regression,
    serve,
    simulate,
    tree,
    trial,
    verdict,
    worker,
)
from lab.cli.render import errors
from lab.errors import LabError
from lab.flights.plain_text import clean


class LabGroup(click.Group):
    """The one place where an error of the lab becomes a message and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run; a `LabError` is printed in a line or two, never as a traceback."""
        try:
            return super().main(*args, **kwargs)
        except LabError as error:
            errors().print(f"[bold red]error:[/] {_escaped(error.message)}", soft_wrap=True)
            if error.hint:
                errors().print(f"[dim]  what to do:[/] {_escaped(error.hint)}", soft_wrap=True)
            if error.evidence is not None and error.evidence.output:
                errors().print(_escaped(error.evidence.output[-2000:].rstrip()), style="dim", soft_wrap=True)
            sys.exit(error.exit_code)


def _escaped(text: str) -> str:
    return clean(text).replace("[", "\\[")


@click.group(cls=LabGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="flightline", prog_name="lab")
def main() -> None:
    """Flightline: a continuous test lab for the Xen hypervisor.

    The exit code of commands that judge a flight is its verdict: 0 pass, 1 fail, 3 the lab is broken, 4 aborted;
    2 means that the command itself was wrong.
    """


main.add_command(flight.flight)
main.add_command(job.job)
main.add_command(plan.plan)
main.add_command(plan.queue)
main.add_command(simulate.simulate)
main.add_command(matrix.matrix)
main.add_command(bisect.bisect)
main.add_command(verdict.verdict)
main.add_command(gate.gate)
main.add_command(regression.regression)
main.add_command(regression.known_issue)
main.add_command(mail.mail)
main.add_command(mail.subscription)
main.add_command(host.host)
main.add_command(lease.lease)
main.add_command(blockage.blockage)
for command in (lease.lease_, lease.release, lease.extend, lease.hand_over_, lease.power, lease.run_):
    host.host.add_command(command)
for command in (health.quarantine, health.drain, health.return_):
    host.host.add_command(command)
main.add_command(image.image)
main.add_command(tree.tree)
main.add_command(trial.try_)
main.add_command(build.build)
main.add_command(db.db)
main.add_command(doctor.doctor)
main.add_command(prune.prune_)
main.add_command(serve.serve)
main.add_command(boot_service.boot_service)
main.add_command(boot_service.dhcp_config)
main.add_command(serve.leader)
main.add_command(worker.worker)
