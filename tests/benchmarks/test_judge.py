"""The benchmark runs and draws; its figures are for a longer run than a unit test."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "judge.py"


@pytest.mark.soak
def test_a_quick_look_prints_the_table_and_draws_the_plot(tmp_path):
    plot = tmp_path / "judge.png"
    command = [sys.executable, str(BENCHMARK), "--quick", "--worlds", "4", "--seed", "9", "--plot", str(plot)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name in ("greedy", "threshold", "mean of 3", "default", "strict"):
        assert f"\n{name} " in done.stdout
    assert "false keeps in 500 trials without any gain" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
