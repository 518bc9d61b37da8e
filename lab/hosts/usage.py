"""How much of the hosts a tenant has used, with older use counting less. Pure."""

from __future__ import annotations

import math


def faded(host_seconds: float, elapsed_s: float, half_life_s: float) -> float:
    """What is left of a use after `elapsed_s`; a clock that went back lets nothing grow."""
    return host_seconds * math.pow(0.5, max(elapsed_s, 0.0) / half_life_s)
