"""How busy the machine is, and how limits on time count it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from autoresearch.execute.load import EVERY, LEAST, Clock, LoadMeter, Look


def looked(*rates: tuple[float, float], cores: int = 2, reference: float = 0.001) -> LoadMeter:
    """A meter that has looked; between two looks others and we used so many cores."""
    used = ours = now = 0.0
    looks = [Look(now, used, ours, reference)]
    for others, own in rates:
        now, used, ours = now + EVERY, used + (others + own) * EVERY, ours + own * EVERY
        looks.append(Look(now, used, ours, reference))
    meter = LoadMeter(iter(looks).__next__, cores)
    for _ in looks:
        meter.look()
    return meter


@pytest.mark.parametrize(
    ("rates", "full", "stretch"),
    [
        ([(0.0, 2.0)] * 4, False, 1.0),  # our own trials fill it, as at the baseline
        ([(0.9, 0.9)] * 4, False, 1.0),  # there is room
        ([(1.0, 1.0)] * 4, True, 2.0),
        ([(1.9, 0.1)] * 4, True, 8.0),
        ([(2.0, 0.0)] * 2 + [(0.0, 1.0)] * 8, False, 1.0),
        ([], False, 1.0),
    ],
)
def test_a_machine_has_no_room_if_others_use_it_up(
    rates: Sequence[tuple[float, float]], full: bool, stretch: float
) -> None:
    meter = looked(*rates)
    assert meter.full is full and meter.stretch == pytest.approx(stretch)


def test_what_other_programs_did_meanwhile_is_told() -> None:
    meter = looked(*[(1.5, 0.5)] * 10)
    assert meter.blame((0.0, 0.0)) == "other programs used 1.5 of 2 cores for 5 s"
    assert meter.blame(meter.mark) == "", "nothing since"
    assert str(meter) == "other programs use 1.5 of 2 cores"
    assert looked(*[(0.0, 2.0)] * 10).blame((0.0, 0.0)) == ""


@pytest.mark.parametrize(("full", "given", "counted"), [(False, 0.1, 10), (True, 0.5, 5), (True, 0.0, 2.5)])
def test_only_the_time_counts_that_a_trial_was_given(
    monkeypatch: pytest.MonkeyPatch, full: bool, given: float, counted: float
) -> None:
    """On a machine with room all; on one without room the share of its cores, and a quarter at least."""
    now = 100.0
    monkeypatch.setattr("autoresearch.execute.load.time.monotonic", lambda: now)
    meter = looked(*[(1.0, 1.0) if full else (0.0, 1.0)] * 4)
    clock = Clock(meter, lambda: 2 * given * (now - 100.0), threads=2)
    for _ in range(20):
        now += 0.5
        clock.tick()
    assert clock.wall == 10.0 and clock.seconds == pytest.approx(counted) and LEAST == 0.25
    assert clock.cpu == pytest.approx(20 * given)
    assert ("10 s of them without room" in str(clock)) is full


def test_the_kernel_counts_our_own_time_as_ours() -> None:
    meter = LoadMeter()
    first = meter._look()
    until = time.thread_time() + 0.1
    while time.thread_time() < until:
        pass
    last = meter._look()
    assert last.ours - first.ours > 0.05 and last.used - first.used > 0.05
    assert 0 < last.reference < 1


def test_looks_are_taken_only_while_somebody_watches() -> None:
    taken = 0

    def look() -> Look:
        nonlocal taken
        taken += 1
        return Look(time.monotonic(), 0.0, 0.0, 0.0)

    meter = LoadMeter(look, 2)
    with meter.watching(), meter.watching():
        while not taken:
            time.sleep(0.01)
    assert taken == 1


@pytest.mark.parametrize("full", [False, True])
def test_time_counts_in_which_a_program_does_not_want_to_compute(
    monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """Only waiting for a core is left out: a program that sleeps is slow itself."""
    now, waits = 100.0, 0.0
    monkeypatch.setattr("autoresearch.execute.load.time.monotonic", lambda: now)
    others = 1.0 if full else 0.0  # else the cores are used by what this search itself runs beside it
    clock = Clock(looked(*[(others, 1.0)] * 4), lambda: 0.0, threads=2, waited=lambda: waits)
    for share in (0.0, 1.2, 100.0):
        before = clock.seconds
        for _ in range(20):
            now, waits = now + 0.5, waits + share * 0.5
            clock.tick()
        assert clock.seconds - before == pytest.approx({0.0: 10.0, 1.2: 4.0, 100.0: 0.5}[share])
    assert clock.exact and clock.wall == 30.0 and clock.full == (30.0 if full else 0.0)


@pytest.mark.parametrize(("threads", "counted"), [(1, 10.0), (2, 10.0), (4, 5.0)])
def test_more_threads_than_were_given_buy_no_time(
    monkeypatch: pytest.MonkeyPatch, threads: int, counted: float
) -> None:
    """Eight threads on two cores wait six seconds each second, for each other."""
    now = 100.0
    monkeypatch.setattr("autoresearch.execute.load.time.monotonic", lambda: now)
    meter = looked(*[(0.0, 1.0)] * 4)
    clock = Clock(meter, lambda: 2 * (now - 100.0), threads, waited=lambda: 6 * (now - 100.0))
    for _ in range(20):
        now += 0.5
        clock.tick()
    assert clock.seconds == pytest.approx(counted)
