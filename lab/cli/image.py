"""`lab image`: build, list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from lab.bootstrap import make_home, make_image_store
from lab.cli.render import ago, errors, json_option, output, print_json
from lab.images import ImageStore
from lab.settings import read_settings


@click.group()
def image() -> None:
    """Images: what hosts and guests boot."""


@image.command()
@click.argument("names", nargs=-1)
def build(names: tuple[str, ...]) -> None:
    """Build images (default: all that are not built)."""
    settings = read_settings()
    make_home(settings.home)
    store = make_image_store(settings)
    build_images(store, names or [state.name for state in store.state()])
    output().print(f"built: {', '.join(names) if names else 'all images'}")


@image.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """The manifests and what is built of them."""
    settings = read_settings()
    make_home(settings.home)
    states = make_image_store(settings).state()
    if as_json:
        print_json(
            [
                {
                    "name": state.name,
                    "kind": state.kind,
                    "suite": state.suite,
                    "arch": state.arch,
                    "built": state.built,
                    "digest": state.digest,
                    "size": state.size,
                }
                for state in states
            ]
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("image", "kind", "suite", "arch", "built", "size", "digest"):
        table.add_column(column)
    for state in states:
        table.add_row(
            state.name,
            state.kind,
            state.suite,
            state.arch,
            ago(datetime.fromtimestamp(state.built_at, UTC), datetime.now(UTC)) if state.built_at else "no",
            f"{state.size / 1e6:.0f} MB" if state.size else "",
            state.digest[:12],
        )
    output().print(table)


def build_images(store: ImageStore, names: Sequence[str]) -> None:
    """Build what is missing, with a line of progress per image."""
    built = {state.name for state in store.state() if state.built}
    missing = [name for name in names if name not in built]
    if not missing:
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[stage]}"))
    with Progress(*columns, TimeElapsedColumn(), console=errors()) as bars:
        tasks: dict[str, TaskID] = {}
        said: set[tuple[str, str]] = set()

        def show(image: str, stage: str, fraction: float | None) -> None:
            name = image
            if name not in tasks:
                tasks[name] = bars.add_task(f"image {name}", total=None, stage="")
            bars.update(tasks[name], total=1.0 if fraction is not None else None, completed=fraction or 0, stage=stage)
            if not errors().is_terminal and (name, stage) not in said:
                said.add((name, stage))
                errors().print(f"image {name}: {stage}")

        store.ensure_all(missing, show)
