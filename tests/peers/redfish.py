"""A BMC: the Redfish emulator of OpenStack's sushy-tools, in control of a machine through a driver of ours for it."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from servers import free_port

from peers.machine import Switchable

USER, PASSWORD = "lab", "s3cret"
UUID = "58893887-894c-2487-6389-841168418919"

# The emulator's own file of fake systems is its persistent state; it runs a machine's power by a table in memory, so
# what it says is mirrored into the machine by a callback that the emulator is started with.
_START = """
import subprocess, sys
from sushy_tools.emulator import main
from sushy_tools.emulator.resources.systems import fakedriver
program, lie = {program!r}, {lie!r}
real_set = fakedriver.FakeDriver.set_power_state
def set_power_state(self, identity, reset):
    if not lie:
        real_set(self, identity, reset)
        on = reset in ("On", "ForceOn", "GracefulRestart", "ForceRestart")
        subprocess.run([program, "on" if on else "off"], check=True)
def get_power_state(self, identity):
    return "Off" if subprocess.run([program, "status"]).returncode else "On"
fakedriver.FakeDriver.set_power_state = set_power_state
fakedriver.FakeDriver.get_power_state = get_power_state
sys.argv = ["sushy-emulator", "--config", {config!r}]
main.main()
"""


@contextmanager
def redfish_bmc(folder: Path, machine: Switchable, *, lie: bool = False, prefix: Sequence[str] = ()) -> Iterator[str]:
    """A BMC that switches the machine; its URL. `prefix` is the beginning of its command line (to run it elsewhere)."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    users = folder / "users"
    # the emulator reads hashes of passwords as Apache does (bcrypt)
    import bcrypt

    users.write_text(f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
    config = folder / "emulator.conf"
    config.write_text(
        f"""
SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'
SUSHY_EMULATOR_LISTEN_PORT = {port}
SUSHY_EMULATOR_AUTH_FILE = {str(users)!r}
SUSHY_EMULATOR_FAKE_DRIVER = True
SUSHY_EMULATOR_STATE_DIR = {str(folder)!r}
SUSHY_EMULATOR_FAKE_SYSTEMS = [
    {{'uuid': '{UUID}', 'name': 'machine', 'power_state': 'Off',
      'nics': [{{'mac': '00:5c:52:31:3a:9c', 'ip': '172.22.0.100'}}]}}
]
"""
    )
    program = _START.format(program=str(machine.program), lie=lie, config=str(config))
    log = folder / "log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [*prefix, sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 30
        while True:
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            if prefix:  # it cannot be seen from here
                if "Running on" in log.read_text():
                    break
                time.sleep(0.1)
                continue
            try:
                token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                asked = urllib.request.Request(f"{url}/redfish/v1/Systems", headers={"Authorization": f"Basic {token}"})
                urllib.request.urlopen(asked, timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        yield url
    finally:
        running.terminate()
        running.wait(10)
