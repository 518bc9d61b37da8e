"""HVM guests: device model in dom0, firmware, boot from disk."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import Variant

VARIANTS: Final[tuple[Variant, ...]] = ()
