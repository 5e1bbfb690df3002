"""A world of strangers on the loopback: the end state is that of the honest work alone."""

import io
import json
import socket
from contextlib import ExitStack
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from autoresearch.store.git.repository import Repository
from autoresearch.swarm.chain.check import verify_chain
from autoresearch.swarm.queue import choose
from autoresearch.swarm.verify.verifier import verify
from autoresearch.swarm.web.host import opened
from tests.support.toy_task import PATH
from tests.support.tracks import LIMITS, Joiner, Person, make_track, served, tip_of


def post(address: str, body: bytes, kind: str = "application/json") -> tuple[int, dict]:
    """What a server answers."""
    url = f"{address}/api/tracks/t/contributions"
    try:
        with urlopen(Request(url, body, {"Content-Type": kind})) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(io.BytesIO(error.read()))


@pytest.mark.soak
def test_the_end_state_is_that_of_the_honest_work_alone(folder, tmp_path):
    make_track("u")
    repository = Repository(folder.parent.parent)
    limits = LIMITS.model_copy(update={"requests": 10_000, "waiting": 3})
    with ExitStack() as stack:
        tracks, store = stack.enter_context(opened(["t", "u"], folder.parent, repository))
        address = stack.enter_context(served(tracks, store, limits))
        ada = Joiner(tmp_path, "ada", f"{address}/t", [("LEVEL = 1.0", "LEVEL = 1.5")])
        bob = Joiner(tmp_path, "bob", f"{address}/u", [("LEVEL = 1.0", "LEVEL = 1.4")])
        poor = Joiner(
            tmp_path, "poor", f"{address}/t", [("MORE = 0", "MORE = 5"), ("OTHER = 0", "OTHER = 7")]
        )
        assert [row["state"] for row in ada.work() + bob.work()] == ["waiting", "waiting"]
        assert poor.work() == []  # its own judge keeps nothing
        liar, flooder, thief = (Person(tmp_path, name) for name in ("liar", "flooder", "thief"))
        base = tip_of(folder)
        lie = liar.change(folder, "LEVEL = 1.0", "LEVEL = 0.2", pairs=[(i, 0.6, 0.99) for i in range(30)])
        assert post(address, lie.to_json().encode())[0] == 202
        flood = [
            post(address, flooder.change(folder, "MORE = 0", f"MORE = {i}", at=base).to_json().encode())[0]
            for i in range(10, 40)
        ]
        assert flood.count(202) == 3 and set(flood) == {202, 429}
        stolen = thief.change(folder, "LEVEL = 1.0", "LEVEL = 1.5", at=base)
        code, told = post(address, stolen.to_json().encode())
        assert code == 400 and "somebody else sent the same files" in told["reason"]
        for junk in (b"PACK", b"# v2 git bundle\n\n", b"# v2 git bundle\n-" + b"0" * 40 + b" x\n\nPACK" * 9):
            assert post(address, junk, "application/x-git-bundle")[0] == 400
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as gone:
            gone.sendall(
                b"POST /api/tracks/t/contributions HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{"
            )
        for name in ("t", "u"):
            verify(folder.parent / name, store)
    # The server is gone; another process takes over, and whoever joined goes on.
    with opened(["t", "u"], folder.parent, repository) as (tracks, store), served(tracks, store) as address:
        assert choose(store.waiting("t"), store.turns("t"), 0.2) is None
        for joiner, name in ((ada, "t"), (bob, "u")):
            tip, sources = tip_of(folder.parent / name)
            chain = verify_chain(repository, name, tip)
            assert chain.sound, chain.problems
            assert [link.author for link in chain.links] == [joiner.name]
            assert f"LEVEL = {'1.5' if name == 't' else '1.4'}" in sources[PATH]
        states = {one.author: str(one.state) for one in store.contributions("t")}
        assert states["ada"] == "kept"
        assert all(states[name] != "kept" for name in ("liar", "flooder", "thief"))
        shares = {row["author"]: row["share"] for row in tracks["t"].people()}
        assert shares["ada"] == 1.0 and shares["liar"] == 0.0
