"""XSM: what a FLASK policy forbids and allows, and the other families under it."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import Variant

VARIANTS: Final[tuple[Variant, ...]] = ()
