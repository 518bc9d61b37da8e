"""`lab build`: make, show."""

from __future__ import annotations

from pathlib import Path

import click

from lab.bootstrap import make_builds, make_home, make_image_store
from lab.cli.image import build_images
from lab.cli.render import errors, json_option, output, print_json
from lab.flights.builds import ARCHES, CONFIGS, HYPERVISOR, PARTS, BuildRequest
from lab.settings import read_settings


@click.group()
def build() -> None:
    """Builds: revisions of Xen, compiled."""


@build.command()
@click.argument("tree")
@click.argument("revision")
@click.option("--arch", type=click.Choice(ARCHES), default="amd64", show_default=True)
@click.option("--config", type=click.Choice(sorted(CONFIGS)), default="default", show_default=True)
@click.option("--part", type=click.Choice(PARTS), default=HYPERVISOR, show_default=True)
@json_option
def make(tree: str, revision: str, arch: str, config: str, part: str, *, as_json: bool) -> None:
    """Compile REVISION of TREE in the sandbox, unless that was done before, and say where the result is."""
    settings = read_settings()
    make_home(settings.home)
    builds = make_builds(settings)
    request = BuildRequest(tree=tree, revision=revision, arch=arch, config=config)
    build_images(make_image_store(settings), [builds.builder_of(request)])

    def save(name: str, data: bytes) -> None:
        (settings.home / "logs" / f"last-{name}").write_bytes(data)

    built = builds.make(request, part, log=lambda text: errors().print(text, markup=False), save=save)
    if as_json:
        print_json({"key": built.key, "folder": str(built.folder), "version": built.version, "commit": built.commit})
        return
    output().print(f"{part} of Xen {built.version} ({built.commit[:12]}): {built.folder}", markup=False)
    for path in sorted(Path(built.folder).rglob("*")):
        if path.is_file():
            output().print(f"  {path.relative_to(built.folder)}  {path.stat().st_size:,} bytes", markup=False)
