"""A serial console on this terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty

from lab.errors import ConfigError
from lab.hosts.protocols import Console

END_KEY = b"\x1d"
"""Ctrl-]"""
_TAIL_BYTES = 256 * 1024


def attach(console: Console, *, lines: int, follow: bool, interactive: bool) -> None:
    """Print the last `lines` of a console; then follow it, and with `interactive` type on it."""
    end = console.offset()
    recorded = console.read(max(0, end - _TAIL_BYTES), end)
    sys.stdout.buffer.write(b"".join(recorded.splitlines(keepends=True)[-lines:]) if lines else b"")
    sys.stdout.buffer.flush()
    if interactive and not sys.stdin.isatty():
        raise ConfigError("typing on the console needs a terminal", hint="use --follow to read only")
    if interactive:
        _type(console, end)
    elif follow:
        _follow(console, end)


def _follow(console: Console, offset: int) -> None:
    try:
        while True:
            offset = _copy(console, offset)
            time.sleep(0.1)
    except KeyboardInterrupt:
        return


def _copy(console: Console, offset: int) -> int:
    data = console.read(offset)
    if data:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    return offset + len(data)


def _type(console: Console, offset: int) -> None:
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    sys.stderr.write("(Ctrl-] ends)\r\n")
    try:
        tty.setraw(keyboard)
        while True:
            offset = _copy(console, offset)
            if select.select([keyboard], [], [], 0.05)[0]:
                typed = os.read(keyboard, 1024)
                if not typed or END_KEY in typed:
                    return
                console.write(typed)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
