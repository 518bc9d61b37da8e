"""Booting Xen itself, from cold and over the network."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import Variant

VARIANTS: Final[tuple[Variant, ...]] = ()
