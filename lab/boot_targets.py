"""From a job's runvars to what a host boots: built images, and typed boot arguments."""

from __future__ import annotations

import hashlib
from types import MappingProxyType

from lab.errors import ConfigError
from lab.flights.reuse import setup_key
from lab.flights.runvars import Runvars
from lab.flights.steps import Builds, Built, GuestFiles
from lab.flights.xsm import MODES, boot_arguments
from lab.hosts.protocols import BOOT_ARGUMENT, BootTarget, StartRequest
from lab.images import BuiltImage, ImageStore

MEDIA_IN_DOM0 = "/lab/media"
DOM0_MEMORY_MIB = 640


def dom0_memory(mib: int, arch: str) -> str:
    """Xen's argument for dom0's memory: where dom0 could grow (not on Arm), it is told not to."""
    return f"dom0_mem={mib}M,max:{mib}M" if arch == "amd64" else f"dom0_mem={mib}M"


class BuiltImages:
    """The `Images` port on an image store. Nothing is built here: what is missing is an error that says so."""

    def __init__(self, store: ImageStore, builds: Builds) -> None:
        self._store, self._builds = store, builds

    def check(self, name: str) -> None:
        """Raise `NotFoundError` when there is no manifest of this name."""
        self._store.manifest(name)

    def boot_target(self, role: str, runvars: Runvars) -> BootTarget:
        """What a host in `role` boots (see `lab.context.Images`)."""
        dom0 = self._built(runvars.for_role(role, "dom0_image"), kind="dom0")
        guest, stubdom = runvars.for_role(role, "guest_image"), runvars.for_role(role, "stubdom_image")
        common = runvars.integer("dom0_mem", DOM0_MEMORY_MIB, low=256, high=65_536)
        memory = runvars.integer(f"{role}_dom0_mem", common, low=256, high=65_536)
        appended = tuple(runvars.for_role(role, "xen_boot_append").split())
        for argument in appended:
            if not BOOT_ARGUMENT.fullmatch(argument):
                raise ConfigError(
                    f"xen_boot_append: {argument!r} is not a boot argument", hint="letters, digits and ._:/=@,+- only"
                )
        flask = boot_arguments(runvars.choice("flask", MODES)) if runvars.get("flask") else ()
        start = StartRequest(runvars.choice("host_start", list(StartRequest), default=StartRequest.AUTO))
        carried = [self._built(guest, kind="guest")] if guest else []
        carried += [self._built(stubdom, kind="stubdom")] if stubdom else []
        media = self._store.media([image.name for image in carried]) if carried else None
        if dom0.hypervisor is None:
            raise ConfigError(f"image {dom0.name} has no hypervisor", hint="name a dom0 image")
        xen, tools = self._compiled(role, runvars)
        content = "\0".join([dom0.digest, *(built.key for built in (xen, tools) if built)])
        return BootTarget(
            key=f"{setup_key(role, runvars)}-{hashlib.sha256(content.encode()).hexdigest()[:8]}",
            hypervisor=xen.hypervisor if xen and xen.hypervisor else dom0.hypervisor,
            kernel=dom0.kernel,
            initramfs=dom0.initramfs,
            xen_args=(dom0_memory(memory, dom0.arch), *flask, *appended),
            media=media,
            overlays=(tools.overlay,) if tools and tools.overlay else (),
            build_id=xen.build_id if xen else "",
            checksums=tools.checksums if tools else MappingProxyType({}),
            start=start,
        )

    def _compiled(self, role: str, runvars: Runvars) -> tuple[Built | None, Built | None]:
        """Hypervisor and toolstack of the role's build job; None for what comes out of the image."""
        job = runvars.for_role(role, "xenbuildjob")
        if not job:
            return None, None
        key, tools = runvars.for_role(role, "build_key"), runvars.for_role(role, "tools_key")
        if not key:
            raise ConfigError(f"the build job {job} left no build", hint="look at its steps")
        return self._builds.find(key), self._builds.find(tools) if tools else None

    def guest_files(self, image: str) -> GuestFiles:
        """Where dom0 finds the image of a guest or of a stub domain."""
        built, folder = self._built(image, kind="guest", other="stubdom"), f"{MEDIA_IN_DOM0}/{image}"
        return GuestFiles(
            kernel=f"{folder}/{built.kernel.name}",
            ramdisk=f"{folder}/{built.initramfs.name}",
            bzimage=f"{folder}/{built.bzimage.name}" if built.bzimage else "",
            disk=f"{folder}/{built.disk.name}" if built.disk else "",
        )

    def _built(self, name: str, *, kind: str, other: str = "") -> BuiltImage:
        if not name:
            raise ConfigError(f"the job names no {kind} image", hint=f"set the runvar {kind}_image")
        states = {state.name: state for state in self._store.state()}
        if name not in states:
            self._store.manifest(name)  # raises with the names there are
        if not states[name].built:
            raise ConfigError(f"image {name} is not built", hint=f"run `lab image build {name}`")
        if states[name].kind not in (kind, other):
            raise ConfigError(f"image {name} is a {states[name].kind} image", hint=f"a {kind} image is needed here")
        return self._store.ensure(name)
