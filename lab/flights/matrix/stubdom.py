"""HVM guests whose device model runs in a stub domain."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import Variant

VARIANTS: Final[tuple[Variant, ...]] = ()
