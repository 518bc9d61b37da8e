"""The test livepatches of Xen's own tree, what each changes, and what xen-livepatch lists. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

SAYS: Final[Mapping[str, str]] = {
    "xen_hello_world": "Hello World",
    "xen_bye_world": "Bye World!",
    "xen_replace_world": "Hello Again World!"[:15],
}
"""What Xen says as the end of its version (`xen_extra` of `xl info`) once the patch is applied: 15 letters of it."""

REFUSED: Final = "xen_no_xen_buildid"
"""A patch that does not say which Xen it is for: Xen must not take it."""

ORDER: Final = (*SAYS, REFUSED)
"""xen_bye_world builds on xen_hello_world; xen_replace_world takes the place of both."""


def parse_patches(text: str) -> Mapping[str, str]:
    """Name to state of each patch in the output of `xen-livepatch list`.

    >>> parse_patches("xen_hello_world                         | APPLIED    | LIVEPATCH_RULEZ")
    {'xen_hello_world': 'APPLIED'}
    """
    return {row[1]: row[2] for row in re.finditer(r"^(\S+) *\| ([A-Z]+) ", text + " ", re.MULTILINE)}
