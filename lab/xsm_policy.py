"""XSM policies: the folders of xsm_policies/ compiled beside the policy of a Xen tree, and read back for a job.

The tree's own rules compile them (tools/flask/policy/Makefile.common), in the sandbox of its build: both the rules and
the policy are the tree's, and m4 can run programs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.errors import ConfigError, StepFailure
from lab.flights.xsm import NAME, XsmPolicy, parse_test

_SCRIPT: Final = "compile.sh"
EXPECTED: Final = "expect.toml"
LOOSENED: Final = "loosened"
PLACE: Final = "/tmp/policies"  # noqa: S108 - inside the sandbox
_MAGIC: Final = bytes.fromhex("8cff7cf9 08000000") + b"XenFlask"
_LIMIT: Final = 4 << 20

# $1 a variant: its modules are put beside the tree's, in a copy. In here, the tree's links lead nowhere.
_COMPILE: Final = f"""
set -eu
place={PLACE}/$1; policy=$place/tree/tools/flask/policy
mkdir -p "$place/tree/tools/flask" "$place/tree/xen/xsm/flask"
cp -r tools/flask/policy "$place/tree/tools/flask/"
cp -r xen/xsm/flask/policy "$place/tree/xen/xsm/flask/"
cp "$place"/modules/* "$policy/modules/" 2>/dev/null || true
cat "$place/modules.conf" >>"$policy/modules/modules.conf"
exec make -s -C "$policy" -f Makefile.common FLASK_BUILD_DIR="$place" POLICY_FILENAME="$place/policy"
"""


@dataclass(frozen=True)
class Variant:
    """What is compiled into one file: the tree's policy with the modules of a folder of ours, perhaps loosened."""

    name: str
    modules: tuple[Path, ...]

    def command(self) -> list[str]:
        """What to run in the sandbox, in the tree's folder."""
        return ["sh", f"{PLACE}/{_SCRIPT}", self.name]


class PolicyFolder:
    """xsm_policies/: a folder a policy, with NAME.te (NAME.if, NAME.cons), loosened.te and expect.toml."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> tuple[str, ...]:
        """The policies there are."""
        return tuple(sorted(path.name for path in self._folder.iterdir() if path.is_dir()))

    def digest(self) -> str:
        """Names the whole content (16 hex digits)."""
        total = hashlib.sha256()
        for name in self.names():
            for path in self._files(name):
                content = path.read_bytes()
                total.update(f"{name}/{path.name}\n{len(content)}\n".encode() + content)
        return total.hexdigest()[:16]

    def variants(self) -> tuple[Variant, ...]:
        """Everything to compile; `ConfigError` when a folder is not as it should be."""
        found: list[Variant] = []
        for name in self.names():
            parse_test(name, self.expected(name), where=f"{self._folder.name}/{name}/{EXPECTED}")
            modules = tuple(path for path in self._files(name) if path.stem == name)
            found.append(Variant(name, modules))
            loosened = self._folder / name / f"{LOOSENED}.te"
            if loosened.exists():
                found.append(Variant(f"{name}.{LOOSENED}", (*modules, loosened)))
        return tuple(found)

    def expected(self, name: str) -> str:
        """The text of a policy's expect.toml."""
        try:
            return (self._folder / name / EXPECTED).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._folder.name}/{name}/{EXPECTED} cannot be read: {error}") from error

    def lay_out(self, place: Path) -> tuple[Variant, ...]:
        """Put the modules of each variant where its command, run in a sandbox with `place` at `PLACE`, finds them."""
        variants = self.variants()
        place.mkdir(exist_ok=True)
        (place / _SCRIPT).write_text(_COMPILE)
        for variant in variants:
            folder = place / variant.name
            (folder / "modules").mkdir(parents=True)
            modules = [path for path in variant.modules if path.suffix == ".te"]
            for path in variant.modules:
                (folder / "modules" / f"lab_{path.name}").write_bytes(path.read_bytes())
            (folder / "modules.conf").write_text("".join(f"\nlab_{path.stem} = on\n" for path in modules))
        return variants

    def _files(self, name: str) -> tuple[Path, ...]:
        if not NAME.fullmatch(name):
            raise ConfigError(f"{self._folder.name}/{name}: that is no name for a policy", hint="a-z, 0-9 and _")
        allowed = {f"{name}.te", f"{name}.if", f"{name}.cons", f"{LOOSENED}.te", EXPECTED}
        files = tuple(sorted((self._folder / name).iterdir()))
        if strange := [path.name for path in files if path.name not in allowed]:
            raise ConfigError(
                f"{self._folder.name}/{name}: {', '.join(strange)} has no place there",
                hint=f"there may be {', '.join(sorted(allowed))}",
            )
        return files


def collect(place: Path, variants: Sequence[Variant], folder: PolicyFolder, into: Path) -> None:
    """Take the compiled policies, and the tests of ours that go with them; nothing of it is trusted to be a policy."""
    for variant in variants:
        compiled = place / variant.name / "policy"
        # the tree's rules have written it: it might be a link to anywhere
        if compiled.is_symlink() or not compiled.is_file() or compiled.stat().st_size > _LIMIT:
            raise StepFailure(f"policy {variant.name}: the tree's rules left no compiled policy")
        content = compiled.read_bytes()
        if not content.startswith(_MAGIC):
            raise StepFailure(f"policy {variant.name}: what the tree's rules left is no policy of Xen's FLASK")
        (into / f"{variant.name}.policy").write_bytes(content)
    for name in folder.names():
        (into / f"{name}.toml").write_text(folder.expected(name))


def read_policy(build: Path, name: str) -> XsmPolicy:
    """A policy out of a build; `ConfigError` when it has none of this name."""
    compiled = build / f"{name}.policy"
    if not NAME.fullmatch(name) or not compiled.is_file():
        known = sorted(path.stem for path in build.glob("*.toml"))
        raise ConfigError(f"the build has no XSM policy {name!r}", hint=f"there are: {', '.join(known) or 'none'}")
    loosened = build / f"{name}.{LOOSENED}.policy"
    return XsmPolicy(
        test=parse_test(name, (build / f"{name}.toml").read_text(), where=f"{name}/{EXPECTED}"),
        binary=compiled.read_bytes(),
        loosened=loosened.read_bytes() if loosened.is_file() else None,
    )
