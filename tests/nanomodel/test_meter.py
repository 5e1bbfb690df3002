import torch

from nanomodel.meter import Clocks


def test_a_cpu_tells_nothing():
    clocks = Clocks.of(torch.device("cpu"))
    clocks.sample()
    assert clocks.numbers() == {}


def test_mean_and_lowest_show_throttling():
    values = iter([1980.0, 1980.0, None, 1200.0])
    clocks = Clocks(lambda: next(values))
    for _ in range(4):
        clocks.sample()
    assert clocks.numbers() == {"clock_mhz": 1720.0, "clock_min_mhz": 1200.0}


def test_a_machine_without_the_driver_has_no_figures():
    clocks = Clocks.of(torch.device("cuda"))
    clocks.sample()
    assert clocks.numbers() == {} or torch.cuda.is_available()
