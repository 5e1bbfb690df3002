"""Scores a model in the test's own process, through the real server and the real scorer."""

import contextlib
import os
import threading

import pytest

from nanomodel.scoring import bits_per_byte, server
from nanomodel.wire import pair
from tests.support import toy
from tests.support.models import CONTEXT


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return toy.write_cache(tmp_path_factory.mktemp("data") / "cache", train=1_000, validation=2_001, test=700)


@pytest.fixture
def score_of(cache, tmp_path, monkeypatch):
    """Scores a model through the real server and scorer, its two servers in threads."""

    def run(make, **changes):
        count = 3 if changes.get("questions") else 2
        models = iter([make() for _ in range(count)])
        lock = threading.Lock()

        def load(weights, vocab, context):
            os.close(weights)
            with lock:
                return next(models)

        monkeypatch.setattr(server, "load_model", load)
        monkeypatch.setitem(bits_per_byte.LOGIT_BYTES, "cpu", 20 * CONTEXT * 256 * 4)  # 20 windows a request
        (tmp_path / "weights").write_bytes(b"x")
        options = {"cache": str(cache), "splits": ["validation"], "context": CONTEXT, "device": "cpu"}
        options |= {"threads": 1, "seed": 5, "probes": 64, "seconds": 60.0}
        wires = [pair() for _ in range(count)]
        threads = [threading.Thread(target=server.serve, args=(theirs,), daemon=True) for _, theirs in wires]
        for thread in threads:
            thread.start()
        with (tmp_path / "weights").open("rb") as weights, contextlib.ExitStack() as stack:
            for thread in threads:
                stack.callback(thread.join, 10)
            for ours, _ in wires:
                stack.callback(ours.close)
            done = bits_per_byte.score(
                bits_per_byte.Job(**{**options, **changes}), weights.fileno(), [w for w, _ in wires]
            )
            return done[0] if len(done) == 1 else done

    return run
