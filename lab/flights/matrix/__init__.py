"""Which jobs a flight has: families of variants, multiplied by the architectures they are tested on.

A file a family, a line a job; `lab matrix show` prints what comes out, and tests/golden/ keeps it for review.
"""

from __future__ import annotations

from lab.flights.matrix.dump import dump
from lab.flights.matrix.flights import FLIGHTS, flight_specs
from lab.flights.matrix.picking import select

__all__ = ["FLIGHTS", "dump", "flight_specs", "select"]
