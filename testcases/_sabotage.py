"""Ways to let a migration fail that several steps use."""

from __future__ import annotations

from lab.hosts.protocols import HostAccess

# It is fed by the stream, so it is there from the first page to the last.
_KILL_RECEIVER = """
(tries=0; until pid=$(pidof libxl-save-helper) || [ $tries -gt 3000 ]; do sleep 0.2; tries=$((tries + 1)); done
sleep 1; kill -9 $pid) </dev/null >/dev/null 2>&1 &
"""


def kill_receiver(host: HostAccess) -> None:
    """The process that fills the memory of the next guest to arrive at `host` dies a second after it began."""
    host.shell.script(_KILL_RECEIVER)
