"""A world in which everybody lies, and one in which nobody does; the figures are for a longer run."""

import pytest

from benchmarks.swarm import explore


@pytest.mark.soak
@pytest.mark.parametrize("hostile", [0.0, 0.9, 1.0])
def test_liars_take_no_more_than_the_share_of_newcomers_and_those_who_turned(hostile):
    result = explore(hostile, 1, 120, True, 0)
    assert result.runs == 120
    assert result.lost <= (0.35 if hostile else 0.0) * result.runs
    assert result.swarm.false == 0
    assert explore(hostile, 1, 120, True, 0) == result
