"""Image manifests (images/*.toml): what an image is made of. Data in, checked types out."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lab.errors import ConfigError


def _path_in_tree(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/") or text.endswith("/"):
        raise ValueError("must be an absolute path without '..' and without '/' at the end")
    return text


def _path_below(text: str) -> str:
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError("must be a relative path without '..'")
    return text


TreePath = Annotated[str, AfterValidator(_path_in_tree)]
RelativePath = Annotated[str, StringConstraints(min_length=1), AfterValidator(_path_below)]
Package = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]+$")]
Module = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Strict):
    """A C program of ours: `file` in images/sources is compiled and linked statically, and put at `target`."""

    file: RelativePath
    target: TreePath


class Edit(_Strict):
    """Lines to leave out of a text file of Debian's: every line that holds one of the texts of `drop`."""

    path: TreePath
    drop: Annotated[tuple[Annotated[str, StringConstraints(min_length=1)], ...], Field(min_length=1)]


class Manifest(_Strict):
    """What one image is made of. See images/*.toml; unknown fields are refused."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    kind: Literal["dom0", "guest", "stubdom", "builder"]
    suite: Annotated[str, StringConstraints(pattern=r"^[a-z]+$")]
    arch: Literal["amd64", "arm64", "armhf"]
    xen: Annotated[str, StringConstraints(pattern=r"^4\.[0-9]+$")] | None = None
    packages: Annotated[tuple[Package, ...], Field(min_length=1)]
    commands: tuple[TreePath, ...] = ()
    include: tuple[TreePath, ...] = ()
    modules: tuple[Module, ...] = ()
    modules_on_demand: tuple[Module, ...] = ()
    overlay: RelativePath | None = None
    overlays: tuple[RelativePath, ...] = ()
    sources: tuple[Source, ...] = ()
    edits: tuple[Edit, ...] = ()
    firmware: bool = False
    """A guest that a BIOS can start, too: it also has a compressed kernel, and a disk it boots from."""

    @property
    def all_overlays(self) -> tuple[str, ...]:
        """`overlay`, and what lies on top of it; of two files of one path the last one's counts."""
        return (*([self.overlay] if self.overlay else []), *self.overlays)

    @model_validator(mode="after")
    def _only_where_it_belongs(self) -> Self:
        if (self.kind in {"dom0", "stubdom"}) != (self.xen is not None):
            raise ValueError(f"a {self.kind} {'has no' if self.xen else 'names its'} Xen version in `xen`")
        if (self.kind == "builder") != (self.overlay is None):
            raise ValueError("a dom0 and a guest name their overlay folder in `overlay`, a builder has none")
        if self.firmware and (self.kind, self.arch) != ("guest", "amd64"):
            raise ValueError("only a guest image for amd64 can be started by a BIOS")
        return self


def load_manifests(folder: Path) -> Mapping[str, Manifest]:
    """The manifests in `folder` by name, sorted. Raises ConfigError naming the file and the field that is wrong."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder of image manifests")
    return {path.stem: load_manifest(path) for path in sorted(folder.glob("[!_]*.toml"))}


def _extended(path: Path, above: tuple[str, ...]) -> dict[str, Any]:
    """What the file says, put on top of what it extends (`extends = "NAME"`): lists grow, anything else replaces."""
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if "name" in content:
        raise ConfigError(f"{path}: name: the name of an image is the name of its file")
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str) or not re.fullmatch(r"[a-z0-9_][a-z0-9.-]*", base):
        raise ConfigError(f"{path}: extends: {base!r} is not the name of a manifest")
    if base in (*above, path.stem):
        raise ConfigError(f"{path}: extends: {base} extends itself")
    whole = _extended(path.with_name(f"{base}.toml"), (*above, path.stem))
    for name, value in content.items():
        both_lists = isinstance(value, list) and isinstance(whole.get(name), list)
        whole[name] = whole[name] + value if both_lists else value
    return whole


def _filled(content: dict[str, Any]) -> dict[str, Any]:
    """The manifest with its Xen series in the place of `{xen}` and its architecture in that of `{arch}`, everywhere."""
    words = {f"{{{name}}}": content.get(name) for name in ("xen", "arch")}

    def fill(value: object) -> object:
        match value:
            case str():
                for word, stands_for in words.items():
                    value = value.replace(word, stands_for) if isinstance(stands_for, str) else value
                return value
            case list():
                return [fill(one) for one in value]
            case dict():
                return {name: fill(one) for name, one in value.items()}
            case _:
                return value

    return {name: fill(value) for name, value in content.items()}


def load_manifest(path: Path) -> Manifest:
    """The manifest in one file, with all that it extends. Raises ConfigError naming the file and the field."""
    content = _filled(_extended(path, ()))
    try:
        manifest = Manifest.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        what = "; ".join(
            f"{'.'.join(str(part) for part in one['loc']) or 'manifest'}: {one['msg']}" for one in error.errors()
        )
        raise ConfigError(f"{path}: {what}") from error
    for overlay in manifest.all_overlays:
        if not (path.parent / "overlays" / overlay).is_dir():
            raise ConfigError(f"{path}: overlay: there is no folder overlays/{overlay}")
    for source in manifest.sources:
        if not (path.parent / "sources" / source.file).is_file():
            raise ConfigError(f"{path}: sources: there is no file sources/{source.file}")
    return manifest
