"""The live patches of Xen's own tree: applied, replaced and reverted on a scripted host."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_testcases_steps import FakeContext, FakeHost, FakeShell

from lab.errors import Blocked, StepFailure
from lab.hosts.protocols import CommandResult
from testcases._livepatch import ORDER, REFUSED, SAYS, parse_patches
from testcases.livepatch import livepatch


@dataclass
class PatchedXen(FakeShell):
    """A Xen that takes patches. `deaf`: it says that it took them, and goes on as before."""

    states: dict[str, str] = field(default_factory=dict)
    deaf: bool = False
    careless: bool = False

    def run(self, *argv: str, timeout_s: float = 60.0, check: bool = True, stdin: bytes = b"") -> CommandResult:
        command = " ".join(argv)
        match argv:
            case ("xl", "info"):
                applied = [name for name, state in self.states.items() if state == "APPLIED"]
                says = SAYS[applied[-1]] if applied and not self.deaf else ".5"
                return self._result(command, 0, f"xen_extra              : {says}\n")
            case ("xen-livepatch", "list"):
                return self._result(command, 0, "".join(f"{n:40}| {s:10} | \n" for n, s in self.states.items()))
            case ("xen-livepatch", "upload", name, path):
                assert path in self.files
                if name == REFUSED and not self.careless:
                    return self._result(command, 1, "Error 22: Invalid argument\n")
                self.states[name] = "CHECKED"
            case ("xen-livepatch", "apply", name):
                self.states[name] = "APPLIED"
            case ("xen-livepatch", "replace", name):
                self.states = dict.fromkeys(self.states, "CHECKED") | {name: "APPLIED"}
            case ("xen-livepatch", "revert", name):
                self.states[name] = "CHECKED"
            case ("xen-livepatch", "unload", name):
                del self.states[name]
            case _:
                raise AssertionError(command)
        return self._result(command, 0, "completed\n")


@pytest.fixture
def xen() -> PatchedXen:
    return PatchedXen()


@pytest.fixture
def ctx(xen: PatchedXen, tmp_path: Path) -> FakeContext:
    """A job whose Xen was built, with its test patches."""
    (tmp_path / "livepatch").mkdir()
    for name in ORDER:
        (tmp_path / "livepatch" / f"{name}.livepatch").write_bytes(name.encode())
    made = FakeContext({"host": FakeHost(shell=xen)}, values={"build_key": "abc"})
    made.builds = SimpleNamespace(find=lambda key: SimpleNamespace(folder=tmp_path))  # type: ignore[attr-defined]
    return made


def _run(ctx: FakeContext, *modes: str) -> None:
    for mode in modes:
        ctx.args = {"mode": mode}
        livepatch(ctx)  # type: ignore[arg-type]


def test_xen_is_patched_three_times_and_ends_as_it_began(ctx: FakeContext, xen: PatchedXen) -> None:
    _run(ctx, "apply", "replace", "revert")
    assert xen.states == {}
    assert [line.partition("says ")[2] for line in ctx.lines] == [
        "'Hello World'", "'Bye World!'", "'Hello Again Wor'", "'.5'",
    ]  # fmt: skip


def test_a_patch_without_effect_is_a_failure(ctx: FakeContext, xen: PatchedXen) -> None:
    xen.deaf = True
    with pytest.raises(StepFailure, match=r"should say 'Hello World' after apply of xen_hello_world, but says '\.5'"):
        _run(ctx, "apply")


def test_a_patch_that_was_lost_meanwhile_is_a_failure(ctx: FakeContext, xen: PatchedXen) -> None:
    _run(ctx, "apply")
    xen.states["xen_bye_world"] = "CHECKED"
    with pytest.raises(StepFailure, match="should say 'Bye World!' since it was patched"):
        _run(ctx, "replace")


def test_a_xen_that_takes_a_patch_made_for_none_is_a_failure(ctx: FakeContext, xen: PatchedXen) -> None:
    xen.careless = True
    with pytest.raises(StepFailure, match=f"should refuse {REFUSED}"):
        _run(ctx, "apply", "replace", "revert")


def test_without_a_build_or_its_patches_the_job_is_blocked(ctx: FakeContext, tmp_path: Path) -> None:
    (tmp_path / "livepatch" / "xen_bye_world.livepatch").unlink()
    with pytest.raises(Blocked, match=r"has no xen_bye_world\.livepatch"):
        _run(ctx, "apply")
    ctx.runvars.set("build_key", "")
    with pytest.raises(Blocked, match="Debian's package"):
        _run(ctx, "apply")


def test_the_list_of_patches_is_read() -> None:
    listed = (
        " ID                                     | status     | metadata\n"
        "----------------------------------------+------------+---------------\n"
        "xen_hello_world                         | APPLIED    | LIVEPATCH_RULEZ\n"
        "xen_nop                                 | CHECKED    | \n"
    )
    assert parse_patches(listed) == {"xen_hello_world": "APPLIED", "xen_nop": "CHECKED"}
    assert parse_patches("Nothing to list\n") == {}
