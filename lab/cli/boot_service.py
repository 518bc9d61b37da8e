"""`lab boot-service`: what machines that boot over the network ask; `lab dhcp-config`: how they find it."""

from __future__ import annotations

from ipaddress import IPv4Interface
from pathlib import Path

import click

from lab.cli.opening import lab_option, settings_with
from lab.cli.render import output
from lab.errors import ConfigError
from lab.hosts.bootscript import start_script
from lab.hosts.dhcp import START_SCRIPT, BootNetwork, Reservation, dnsmasq_config
from lab.labfile import MetalSettings, load_lab_file


@click.command("boot-service")
@click.option("--host", "address", required=True, help="The address on the machines' network to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8090, show_default=True)
def boot_service(address: str, port: int) -> None:
    """Hand out what hosts boot over the network, for one boot each; it needs the lab's home and no database.

    It gives away what was armed for a machine to whoever knows that boot's token, and nothing else.
    """
    import uvicorn

    from web.boot_service import create_boot_service

    home = settings_with().home
    output().print(f"boot service at http://{address}:{port}/boot  (Ctrl-C ends)")
    uvicorn.run(create_boot_service(home), host=address, port=port, log_level="warning")


@click.command("dhcp-config")
@click.option("--interface", required=True, help="The network card on the machines' network.")
@click.option("--address", required=True, metavar="ADDRESS/LENGTH", help="Its address, e.g. 192.168.78.1/24.")
@click.option(
    "--tftp-root", default="/srv/tftp", show_default=True, help="Where dnsmasq finds iPXE and the first script."
)
@click.option("--proxy", is_flag=True, help="Another DHCP server gives out the addresses.")
@click.option("--start-script", "first", is_flag=True, help=f"Print {START_SCRIPT} for the TFTP root instead.")
@lab_option
def dhcp_config(
    interface: str, address: str, tftp_root: str, lab_file: Path | None, *, proxy: bool, first: bool
) -> None:
    """Print dnsmasq's configuration for the real machines of the lab's file."""
    lab = load_lab_file(settings_with(lab_file).file)
    if not lab.boot.url:
        raise ConfigError(
            "[boot] url is missing in the lab's file", hint="it is where machines reach `lab boot-service`"
        )
    if first:
        click.echo(start_script(f"{lab.boot.url}/boot"), nl=False)
        return
    try:
        here = IPv4Interface(address)
    except ValueError as error:
        raise ConfigError(f"{address!r} is no address with a length", hint="e.g. 192.168.78.1/24") from error
    machines = [
        Reservation(name=host.name, mac=host.driver.boot.mac, address=IPv4Interface(host.driver.address).ip)
        for host in lab.host
        if isinstance(host.driver, MetalSettings)
    ]
    net = BootNetwork(
        interface=interface,
        server=here.ip,
        network=here.network,
        tftp_root=tftp_root,
        mode="proxy" if proxy else "full",
    )
    click.echo(dnsmasq_config(net, machines), nl=False)
