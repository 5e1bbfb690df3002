"""The leaderboard in a browser: it fits a phone, and says what happened."""

import os
from pathlib import Path

import pytest

from autoresearch.swarm.queue import claimed
from autoresearch.swarm.verify.verifier import verify
from tests.support.tracks import LIMITS, Person, served

pytestmark = pytest.mark.slow

LONG = (
    "replace the learning-rate schedule by a_very_long_identifier_without_any_break_that_a_phone_cannot_show"
)


def test_the_leaderboard_fits_a_phone_and_tells_what_happened(track, store, folder, tmp_path, browser):
    ada, bob, eve = (Person(tmp_path, name) for name in ("ada", "bob", "eve-with-a-name-that-is-rather-long"))

    def send(signed):
        claim = claimed(signed.contribution.evidence.pairs, track.summary.metric, 0.002)
        return store.receive(signed, "n1", claim, LIMITS)

    send(ada.change(folder, "LEVEL = 1.0", "LEVEL = 1.6", title=LONG))
    send(bob.change(folder, "OTHER = 0", "OTHER = 'crash'"))
    verify(folder, store)
    send(bob.change(folder, "LEVEL = 1.6", "LEVEL = 2.0"))
    verify(folder, store)
    send(eve.change(folder, "MORE = 0", "MORE = 3", pairs=[(i, 0.5, 0.9) for i in range(20)]))
    with served({"t": track}, store) as address:
        for width, name in ((1200, "desktop"), (390, "phone")):
            browser.open(f"{address}/t", width, 900)
            browser.wait("document.querySelectorAll('table').length >= 4")
            assert browser.eval("document.documentElement.scrollWidth") <= width, name
            text = browser.text()
            for said in ("ada", "bob", "not confirmed", "waits for the verifier", "95% interval"):
                assert said in text, said
            if "PICTURES" in os.environ:
                browser.picture(Path(os.environ["PICTURES"], f"{name}.png"), whole=True)
