"""The job matrix as it is reviewed: a change of it is a difference in tests/golden/, a fact a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.flights.matrix import FLIGHTS, dump, flight_specs

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("flight", FLIGHTS)
def test_the_matrix_is_the_one_that_was_reviewed(flight: str) -> None:
    reviewed = (GOLDEN / f"matrix-{flight}.txt").read_text()
    assert dump(flight_specs(flight)) == reviewed, (
        f"the matrix {flight} has changed; if it is meant to: "
        f"./run lab matrix show --matrix {flight} --plain >tests/golden/matrix-{flight}.txt"
    )
