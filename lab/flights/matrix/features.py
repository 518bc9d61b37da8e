"""Features of the hypervisor that have a job of their own."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import Variant

VARIANTS: Final[tuple[Variant, ...]] = ()
