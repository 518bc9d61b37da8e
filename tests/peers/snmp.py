"""A PDU: net-snmp's snmpd, whose outlets a program of ours answers for (`pass`)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from servers import free_port

from peers.machine import Switchable, SwitchedMachine

COMMUNITY = "rooms secret"
USER, AUTH, PRIVACY = "lab", "auth-s3cret", "priv-s3cret"
OUTLETS = "1.3.6.1.4.1.318.1.1.4.4.2.1.3"

# snmpd starts it for each request: -g OID, or -s OID TYPE VALUE. Each request is logged with its beginning and end, so
# that a test sees whether two were under way at once.
_ANSWER = """#!{python} -IS
import subprocess, sys, time
states = dict({states!r})
def note(word):
    with open({log!r}, "a") as file: file.write(f"{{time.monotonic()}} {{word}} {{' '.join(sys.argv[1:])}}\\n")
note("begin")
oid = sys.argv[2]
outlet = oid.rsplit(".", 1)[-1]
state = states.get(outlet)
if state is not None and oid == ".{oid}." + outlet:
    if sys.argv[1] == "-s":
        time.sleep({slow})
        if not {lie!r} and sys.argv[4] in "12":
            if {programs!r}: subprocess.run([state, "on" if sys.argv[4] == "1" else "off"], check=True)
            else:
                with open(state, "w") as file: file.write("1" if sys.argv[4] == "1" else "0")
    else:
        if {programs!r}: on = subprocess.run([state, "status"]).returncode == 0
        else: on = open(state).read().strip() == "1"
        print(oid); print("integer"); print(1 if on else 2)
elif sys.argv[1] == "-s":
    print("not-writable")
note("end")
"""


@contextmanager
def snmp_pdu(
    folder: Path,
    outlets: Mapping[int, Switchable],
    *,
    lie: bool = False,
    slow: float = 0.0,
    prefix: Sequence[str] = (),
) -> Iterator[tuple[int, Path]]:
    """A PDU with these outlets: its UDP port, and the log of what was asked. `prefix`: to run it elsewhere."""
    snmpd = shutil.which("snmpd") or "/usr/sbin/snmpd"
    assert Path(snmpd).exists(), "apt install snmpd"
    folder.mkdir(parents=True, exist_ok=True)
    port, log, answer, config = free_port(), folder / "asked", folder / "answer", folder / "snmpd.conf"
    programs = not all(isinstance(machine, SwitchedMachine) for machine in outlets.values())
    states = {
        str(number): str(machine.state if isinstance(machine, SwitchedMachine) and not programs else machine.program)
        for number, machine in outlets.items()
    }
    answer.write_text(
        _ANSWER.format(
            python=sys.executable, log=str(log), states=states, oid=OUTLETS, lie=lie, slow=slow, programs=programs
        )
    )
    answer.chmod(0o755)
    config.write_text(
        f'rwcommunity "{COMMUNITY}" 127.0.0.1\n'
        f"createUser {USER} SHA {AUTH} AES {PRIVACY}\nrwuser {USER} authPriv\n"
        f"pass .{OUTLETS} {answer}\n"
    )
    with (folder / "log").open("wb") as output:
        running = subprocess.Popen(
            [*prefix, snmpd, "-f", "-Lo", "-C", "-c", str(config), f"udp:127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={"PATH": "/usr/bin:/bin", "SNMP_PERSISTENT_DIR": str(folder), "MIBS": ""},
        )  # fmt: skip
    try:
        time.sleep(0.5)
        assert running.poll() is None, (folder / "log").read_text()
        yield port, log
    finally:
        running.terminate()
        running.wait(10)
