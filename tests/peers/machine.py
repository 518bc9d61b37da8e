"""A machine for peers to switch: a file that says whether it is on. Programs of other people switch it by a command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

_SCRIPT = """#!{python} -IS
import sys
words = sys.argv[1:]
def on(): return open({state!r}).read().strip() == "1"
def switch(to):
    with open({state!r}, "w") as file: file.write(to)
if {lie!r}: pass
elif words[-3:-1] == ["set", "power"]: switch(words[-1])
elif words[-1:] == ["on"]: switch("1")
elif words[-1:] == ["off"]: switch("0")
if "get" in words or "status" in words:
    if "get" in words: print(f"power:{{int(on())}}")
    if words[-1:] == ["status"]: sys.exit(0 if on() else 1)
"""


class Switchable(Protocol):
    """A machine that others switch by running `program`: with `get power` or `set power 1`; with `on` or `status`."""

    program: Path


class SwitchedMachine:
    """What is switched. `lie`: whoever switches it is told that it was done, and it was not."""

    def __init__(self, folder: Path, *, lie: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / "state"
        self.state.write_text("0")
        self.program = folder / "switch"
        self.program.write_text(_SCRIPT.format(python=sys.executable, state=str(self.state), lie=lie))
        self.program.chmod(0o755)

    @property
    def on(self) -> bool:
        return self.state.read_text().strip() == "1"
