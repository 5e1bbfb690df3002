import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.report.page import write_report
from autoresearch.report.plots.progress import PHASES as COLORS
from autoresearch.report.timeline import BESIDE, DEVICE, GAP, LOOP, ORDER, PROPOSING, time_use, trace
from autoresearch.store.database import Phase, Span
from tests.support.searches import EVIL, Recorded, night

PHASES = get_args(Phase)


def trial(number, begin, experiment=1):
    """A trial of 10 s: 1 to start, 1 to warm up, 6 to train, 2 to score."""
    times = {"startup": (0, 1), "warmup": (1, 2), "train": (2, 8), "score": (8, 10)}
    return [Span(experiment, number, p, begin + a, begin + b) for p, (a, b) in times.items()]


def test_a_serial_search():
    found = [Span(1, None, "propose", 0, 5), *trial(1, 5), Span(1, None, "record", 15, 16), *trial(2, 16, 2)]
    spent = time_use(found)
    assert (spent.wall, spent.training, spent.devices) == (26, 12, 1)
    assert spent.busy == pytest.approx(12 / 26)
    assert list(spent.phases) == ["propose", "startup", "warmup", "train", "score", "record"]
    assert spent.experiments[2] == {"startup": 1, "warmup": 1, "train": 6, "score": 2}


def test_proposing_beside_a_training_costs_nothing():
    alone, beside = time_use(trial(1, 0)), time_use([*trial(1, 0), Span(2, None, "propose", 1.5, 10.5)])
    assert alone.busy == 0.6 and beside.busy == 6 / 10.5
    assert beside.experiments[2] == {"propose": 0.5}


def test_two_devices_are_two():
    spent = time_use([*trial(1, 0), *trial(2, 0)])
    assert spent.devices == 2 and spent.busy == pytest.approx(12 / 20)


def test_one_after_the_other_is_one_device():
    assert time_use([*trial(1, 0), Span(1, 2, "train", 8, 9)]).devices == 1


def test_an_interruption_does_not_count():
    assert time_use([*trial(1, 0), *trial(2, 10 + GAP + 1)]).wall == 20
    assert time_use([*trial(1, 0), *trial(2, 10 + GAP)]).wall == 20 + GAP


def test_every_phase_that_can_be_noted_is_shown_in_its_place_and_no_other():
    assert ORDER == PHASES and set(COLORS) <= set(PHASES)


def test_nothing_was_done():
    assert time_use([]).busy is None and time_use([]).to_dict()["wall_seconds"] == 0


seconds = st.floats(0, 1e4)
SPANS = st.lists(
    st.builds(
        lambda n, t, p, a, d: Span(n, t, p, a, a + d),
        st.integers(0, 5), st.none() | st.integers(1, 9), st.sampled_from(PHASES), seconds, seconds,
    ),
    max_size=30,
)  # fmt: skip


@given(SPANS)
def test_shares_and_traces_of_anything(found):
    found = sorted(found, key=lambda span: span.started)
    spent = time_use(found)
    assert spent.busy is None or 0 <= spent.busy <= 1 + 1e-9
    length = sum(s.finished - s.started for s in found)
    beside = sum(s.finished - s.started for s in found if s.phase in BESIDE)
    assert length - beside - 1e-6 <= sum(spent.phases.values()) <= length + 1e-6
    assert all(seconds >= -1e-6 for seconds in spent.phases.values())
    each = sum(seconds for one in spent.experiments.values() for seconds in one.values())
    assert each == pytest.approx(sum(spent.phases.values()))
    events = [e for e in json.loads(json.dumps(trace("x", found, [])))["traceEvents"] if e["ph"] == "X"]
    assert len(events) == len(found)
    assert all(e["ts"] >= 0 and e["dur"] >= 0 for e in events)


def test_a_trace_has_a_row_for_each_device():
    found = [Span(1, None, "propose", 0, 1), *trial(1, 1), *trial(2, 1), *trial(3, 11)]
    found.append(Span(1, None, "record", 21, 22))
    made = trace("night1", sorted(found, key=lambda s: s.started), night())["traceEvents"]
    rows = {(e["args"]["trial"], e["tid"]) for e in made if e["ph"] == "X"}
    assert rows == {(None, PROPOSING), (None, LOOP), (1, DEVICE), (2, DEVICE + 1), (3, DEVICE)}
    names = {e["args"]["name"] for e in made if e["ph"] == "M"}
    assert names == {"autoresearch/night1", "proposing", "loop", "device 0", "device 1"}
    first = next(e for e in made if e["ph"] == "X" and e["cat"] == "train")
    assert (first["ts"], first["dur"]) == (3_000_000, 6_000_000)
    assert first["args"]["hypothesis"] == "raise the learning rate"


@pytest.mark.slow
def test_the_report_says_it_and_shows_it(tmp_path):
    found = [Span(1, None, EVIL[:20], 10, 11), *trial(1, 0), *trial(2, 11, 2)]
    report = write_report(Recorded(night()), "", tmp_path, found)
    page = report.markdown.read_text()
    assert "| Device busy training | 57% |" in page and "## Where the time went" in page
    assert "| train | 12 s | 57.1% | 1.5 s |" in page
    assert report.html.read_text().count("<svg") == 2
    assert (tmp_path / "timeline.png").exists()
    before = write_report(Recorded(night()), "", tmp_path / "old").html.read_text()
    assert before.count("<svg") == 1 and "Device busy" not in before
