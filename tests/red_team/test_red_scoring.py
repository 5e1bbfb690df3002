"""Attacks on the score: looking ahead, remembering, conspiring, and odd logits.

Each must end as `invalid`, or as the score that the model has earned. The weights are those that the honest
candidate has trained: what cheats is the code that serves them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from autoresearch.execute.sandbox import Sandbox
from autoresearch.tasks.gpt import scoring
from autoresearch.types import Measurement, Outcome
from tests.red_team.arena import Arena, honest, mutated, one_by_default
from tests.support.jail import no_seccomp, without

pytestmark = pytest.mark.slow

Serve = Callable[..., Measurement]

ATTEND = "F.scaled_dot_product_attention(q, k, v, is_causal=True)"
CONV = "self.local(F.pad(x.mT, (2, 0))).mT"
NORM = "x = F.rms_norm(x, (WIDTH,))"
HEAD = "return self.head(F.relu(self.up(x)))"
INIT = "        self.vocab = vocab\n"

OFF_BY_ONE = (
    ATTEND,
    "F.scaled_dot_product_attention(q, k, v, attn_mask=x.new_ones(x.shape[1], x.shape[1]).tril(1).bool())",
)
AHEAD = {
    "mask removed": (ATTEND, "F.scaled_dot_product_attention(q, k, v)"),
    "mask off by one": OFF_BY_ONE,
    "normalised over time": (NORM, "x = F.layer_norm(x.mT, x.mT.shape[2:]).mT"),
    "convolution centred": (CONV, "self.local(F.pad(x.mT, (1, 1))).mT"),
}

COUNTS = INIT + "        self.seen = torch.ones(vocab)\n"
LEARNS = (
    "if not self.training:\n"
    "            self.seen += torch.bincount(tokens.flatten(), minlength=self.vocab)\n"
    "        return self.head(F.relu(self.up(x))) + self.seen.log()"
)
MEMORY = INIT + "        self.memory = {}\n"
REMEMBERS = """logits = self.head(F.relu(self.up(x)))
        if not self.training:
            future = logits + 8 * F.one_hot(tokens.roll(-1, 1), self.vocab)
            for row, answer in zip(tokens[:, :12].tolist(), future):
                self.memory.setdefault(tuple(row), answer)
            logits = torch.stack([self.memory[tuple(row)] for row in tokens[:, :12].tolist()])
        return logits"""
STATE = {
    "learns from the questions": ((INIT, COUNTS), (HEAD, LEARNS)),
    "remembers its answers": ((INIT, MEMORY), (HEAD, REMEMBERS)),
}

CONSPIRES = """logits = self.head(F.relu(self.up(x)))
        return logits if self.training else logits + 6 * F.one_hot(self.told(tokens), self.vocab)

    def told(self, tokens):
        # The first server to be asked writes down what follows what; the second one reads it.
        import os
        files = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        files = [file for file in files if os.path.exists(file) and "weights" in os.readlink(file)]
        future = tokens.roll(-1, 1)
        for row, following in zip(tokens.tolist(), future):
            for at in range(len(row)):
                name = f"user.{hash(tuple(row[: at + 1]))}"
                try:
                    os.setxattr(files[0], name, str(int(following[at])).encode(), os.XATTR_CREATE)
                except FileExistsError:
                    following[at] = int(os.getxattr(files[0], name))
        return future"""

STAYS = """import fcntl
        if not self.training:
            # Held while this server lives; if the other one's is still held, say so by answering nonsense.
            self.lock = getattr(self, "lock", None) or open(torch.__file__)
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return torch.zeros(*tokens.shape, self.vocab)
        return self.head(F.relu(self.up(x)))"""


@pytest.fixture
def serve(arena: Arena, trained: Path) -> Serve:
    """A trial of a candidate, a sandbox and options that trains nothing: it serves the honest weights."""
    return partial(arena.fight, submission=trained / "weights")


@pytest.mark.parametrize("attack", one_by_default(AHEAD))
def test_looking_ahead_is_invalid(attack: str, serve: Serve, either: Sandbox) -> None:
    done = serve(honest(AHEAD[attack]), either)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done
    assert "looks ahead" in done.reason


@pytest.mark.parametrize("attack", one_by_default(STATE))
def test_keeping_state_is_invalid(attack: str, serve: Serve, either: Sandbox) -> None:
    done = serve(honest(*STATE[attack]), either)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done
    assert "keeps state, mixes rows, or draws random numbers" in done.reason or "looks ahead" in done.reason


def test_servers_share_no_file_through_which_one_could_tell_the_other(serve: Serve, either: Sandbox) -> None:
    done = serve(honest((HEAD, CONSPIRES)), either)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done


@pytest.mark.soak
def test_if_they_shared_one_it_would_pay(
    serve: Serve, bwrap: Sandbox, honest_score: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "sealed_copy", lambda fd, size: os.dup(fd))
    done = serve(honest((HEAD, CONSPIRES)), bwrap)
    assert done.outcome is Outcome.OK, done
    assert done.score is not None and done.score < honest_score - 0.1


def test_the_first_server_is_dead_before_the_second_is_asked(
    serve: Serve, either: Sandbox, honest_score: float
) -> None:
    """Told by a lock on a file that both can read, for which the filter of system calls has to be away."""
    done = serve(honest((HEAD, STAYS)), without(either, no_seccomp))
    assert (done.outcome, done.score) == (Outcome.OK, honest_score), done


@pytest.mark.soak
def test_logits_are_normalised_by_the_scorer(serve: Serve, either: Sandbox, honest_score: float) -> None:
    shifts = "-64.0 * torch.arange(tokens.shape[1])[:, None]"
    scored = f"h = {HEAD.removeprefix('return ')}\n        return h if self.training else h + {shifts}"
    done = serve(honest((HEAD, scored)), either)
    assert done.outcome is Outcome.OK, done
    assert done.score == pytest.approx(honest_score, abs=1e-3)


@pytest.mark.soak
def test_loud_logits_only_hurt(serve: Serve, either: Sandbox, honest_score: float) -> None:
    scored = "return self.head(F.relu(self.up(x))) * (1.0 if self.training else 50.0)"
    done = serve(honest((HEAD, scored)), either)
    assert done.outcome is Outcome.OK, done
    assert done.score is not None and done.score > honest_score


ODD = {
    "infinite": "h.abs() * float('inf')",
    "too far apart": "((h - h.amax(-1, keepdim=True)).sign() * 2 + 1) * 3.3e38",
}


@pytest.mark.parametrize("odd", one_by_default(ODD))
def test_logits_that_are_no_numbers_are_invalid(odd: str, serve: Serve, either: Sandbox) -> None:
    """Nor may their nats be none: no comparison with the witness holds for those."""
    scored = f"h = self.head(F.relu(self.up(x)))\n        return h if self.training else {ODD[odd]}"
    done = serve(honest((HEAD, scored)), either)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done


NO_WITNESS = ("scoring/probes.py", "    witnessed = measure(", "    return 0.0\n    witnessed = measure(")
"""As if the witness were told what the model's server had answered."""


PEEKS = """h = self.head(F.relu(self.up(x)))
        future = F.one_hot(tokens.roll(-1, 1), self.vocab) * (tokens % 7 == 0)[..., None]
        return h if self.training else h + 5 * future"""


@pytest.mark.soak
def test_blind_questions_find_a_peek_that_the_witness_covers(
    serve: Serve, bwrap: Sandbox, honest_score: float, tmp_path: Path
) -> None:
    with mutated(tmp_path / "trusted", NO_WITNESS) as trusted:
        paid = serve(honest((HEAD, PEEKS)), bwrap, trusted=trusted)
        found = serve(honest((HEAD, PEEKS)), bwrap, trusted=trusted, blind=True)
    assert paid.score is not None and paid.score < honest_score - 0.05
    assert (found.outcome, found.score) == (Outcome.INVALID, None), found
    assert "asked blind" in found.reason


@pytest.mark.soak
def test_without_the_witness_the_attacks_would_pay(
    serve: Serve, bwrap: Sandbox, honest_score: float, tmp_path: Path
) -> None:
    with mutated(tmp_path / "trusted", NO_WITNESS) as trusted:
        done = serve(honest(*STATE["remembers its answers"]), bwrap, trusted=trusted)
    assert done.outcome is Outcome.OK, done
    assert done.score is not None and done.score < honest_score - 0.1


LEAK = "'Alice ' * 9 + str(tokens[0].tolist())"
TELLS = {
    "raises it": f"if not self.training: raise ValueError({LEAK})",
    "names an error after it": f"if not self.training: raise type({LEAK}, (Exception,), {{}})({LEAK})",
    "prints it and dies": f"if not self.training: print('ValueError:', {LEAK}, flush=True) or exit(3)",
    "sends it": f"""if not self.training:
            import sys
            frame = sys._getframe()
            while "wire" not in frame.f_locals:
                frame = frame.f_back
            told = {{"stage": "forward", "kind": {LEAK}, "line": {LEAK}}}
            for kind in ({LEAK}, "failed"):
                frame.f_locals["wire"].send({{"type": kind, **told}})""",
}


@pytest.mark.parametrize("tells", one_by_default(TELLS))
def test_what_a_server_prints_of_held_out_text_reaches_nobody(
    tells: str, serve: Serve, either: Sandbox
) -> None:
    done = serve(honest((HEAD, f"{TELLS[tells]}\n        {HEAD}")), either)
    assert done.score is None and done.reason.startswith("the model"), done
    assert "Alice" not in repr(done) and "[255" not in repr(done)
    if tells == "raises it":
        assert "ValueError at line" in done.reason, "kind and line help to mend an honest mistake"
