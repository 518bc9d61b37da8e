"""A BMC: OpenIPMI's simulator, which speaks IPMI 2.0 over the LAN."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from servers import free_port

from peers.machine import Switchable

USER, PASSWORD = "lab", "s3cret-p'wd"


@contextmanager
def ipmi_bmc(folder: Path, machine: Switchable, *, sol: str = "", prefix: Sequence[str] = ()) -> Iterator[int]:
    """A BMC that switches the machine; its UDP port. `sol` is what it connects serial over LAN to, `prefix`
    the beginning of its command line (to run it elsewhere).
    """
    assert shutil.which("ipmi_sim"), "apt install openipmi"
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    lan, emulator, log = folder / "lan.conf", folder / "bmc.emu", folder / "log"
    lan.write_text(
        f"""name "lab"
set_working_mc 0x20
startlan 1
  addr 127.0.0.1 {port}
  priv_limit admin
  allowed_auths_callback none md2 md5 straight
  allowed_auths_user none md2 md5 straight
  allowed_auths_operator none md2 md5 straight
  allowed_auths_admin none md2 md5 straight
  guid a123456789abcdefa123456789abcdef
endlan
chassis_control "{machine.program} 0x20"
{f'sol "{sol}" 115200' if sol else ""}
user 1 true "" "x" user 10 none md2 md5 straight
user 2 true "{USER}" "{PASSWORD}" admin 10 none md2 md5 straight
"""
    )
    emulator.write_text(
        "mc_setbmc 0x20\n"
        "mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n"
        "sel_enable 0x20 1000 0x0a\n"
        "mc_enable 0x20\n"
    )
    with log.open("wb") as output:
        running = subprocess.Popen(
            [*prefix, "ipmi_sim", "-c", str(lan), "-f", str(emulator), "-n", "-s", str(folder)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        time.sleep(0.3)
        assert running.poll() is None, log.read_text()
        yield port
    finally:
        running.terminate()
        running.wait(10)
