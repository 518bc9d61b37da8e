"""`./run test --faults [KILLS]`: the long fault matrix, with a summary. Exit code 1 when anything does not hold."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from faults.driver import BROKER, DATABASE, EMBEDDED, MACHINE, SELF, SERVERS, WEB, FaultRun, Report, by_point

VICTIMS = (SELF, MACHINE, DATABASE, BROKER, WEB)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run test --faults", description=__doc__)
    parser.add_argument("kills", nargs="?", type=int, default=220, help="kills in all, half of them on each engine")
    parser.add_argument("--engine", choices=(EMBEDDED, SERVERS), action="append", help="only this one")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="what is killed where")
    asked = parser.parse_args()
    engines = asked.engine or [EMBEDDED, SERVERS]
    console = Console()
    reports = [fly(console, engine, max(1, asked.kills // len(engines)), asked.seed) for engine in engines]
    for report in reports:
        show(console, report)
    return 1 if any(report.violations for report in reports) else 0


def fly(console: Console, engine: str, kills: int, seed: int) -> Report:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"{engine}, seed {seed}", total=kills)

        def told(report: Report) -> None:
            last = report.kills[-1]
            progress.update(task, completed=len(report.kills), description=f"{engine}: {last.victim} at {last.point}")
            if not console.is_terminal and len(report.kills) % 20 == 0:
                console.print(f"{engine}: {len(report.kills)} of {kills} kills")

        return FaultRun(engine, kills, seed, told=told).run()


def show(console: Console, report: Report) -> None:
    table = Table(title=f"{report.engine}: who was killed where", title_justify="left", box=None, padding=(0, 1))
    for column in ("process", "point", "when", *VICTIMS):
        table.add_column(column, justify="left" if column in ("process", "point", "when") else "right")
    for (role, point, phase), killed in sorted(by_point(report).items()):
        table.add_row(role, point, phase, *(str(killed[victim] or "·") for victim in VICTIMS))
    console.print(table)
    slowest = max((kill.recovered or 0.0 for kill in report.kills), default=0.0)
    usual = sorted(kill.recovered or 0.0 for kill in report.kills)[len(report.kills) // 2]
    console.print(
        f"{report.engine}: {len(report.kills)} kills in {report.seconds:.0f} s (seed {report.seed}); "
        f"{report.flights} flights, {report.jobs} jobs, {report.attempts} attempts; "
        f"work went on after {usual:.1f} s (median), {slowest:.1f} s (longest); {len(report.violations)} violations"
    )
    for violation in report.violations[:20]:
        console.print(f"  ✗ {violation}", markup=False, style="red")


if __name__ == "__main__":
    sys.exit(main())
