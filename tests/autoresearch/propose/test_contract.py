"""Every shipped proposer keeps the contract of `autoresearch.propose.base.Proposer`."""

import json
import sys
from pathlib import Path

import pytest

from autoresearch.propose import PROPOSERS, create_proposer, settings
from autoresearch.testing.proposers import PATH, ProposerContract
from tests.support import chat_server as chat
from tests.support import messages_server as api
from tests.support.services import make_services

PATCH = """--- a/train.py
+++ b/train.py
@@ -1,2 +1,2 @@
-LR = 0.02      # x4
+LR = {}      # x4
 WARMUP = 0.0   # 0..0.2
"""
AGENT = """
import pathlib
script, prompt = pathlib.Path("train.py"), pathlib.Path("PROMPT.md").read_text()
rate = next(r for r in ("0.03", "0.04", "0.05") if f"LR = {r}" not in prompt)
script.write_text(script.read_text().replace("LR = 0.02", f"LR = {rate}"))
pathlib.Path("HYPOTHESIS.md").write_text(f"A rate of {rate} learns faster.\\ndifference: another rate")
"""


def edit(number):
    return {"path": PATH, "search": "LR = 0.02", "replace": f"LR = 0.0{number}"}


class TestRandom(ProposerContract):
    @pytest.fixture
    def make(self):
        return lambda: create_proposer("random", column=0)


class TestOptuna(ProposerContract):
    @pytest.fixture(params=["local", "tpe"])
    def make(self, request):
        return lambda: create_proposer("optuna", column=0, sampler=request.param)


class TestPortfolio(ProposerContract):
    authors = ("random", "optuna")

    @pytest.fixture
    def make(self):
        values = settings("portfolio") | {"members": ["random", {"name": "optuna", "sampler": "tpe"}]}
        return lambda: create_proposer("portfolio", column=0, **values)


class TestReplay(ProposerContract):
    @pytest.fixture
    def make(self, tmp_path):
        path = tmp_path / "recorded.jsonl"
        lines = ({"hypothesis": f"h{n}", "category": "optimizer", "edits": [edit(n)]} for n in range(3, 7))
        path.write_text("\n".join(map(json.dumps, lines)))
        return lambda: create_proposer("replay", column=0, path=path)


class TestQueue(ProposerContract):
    repeats = False  # a patch that was taken is not taken again

    @pytest.fixture
    def make(self, tmp_path):
        services = make_services(tmp_path)
        for number in range(3, 7):
            services.inbox.add_idea(f"rate {number}", PATCH.format(f"0.0{number}"))
        return lambda: PROPOSERS.load("queue")(wait=False, services=services)


class TestCommand(ProposerContract):
    @pytest.fixture
    def make(self, tmp_path):
        program = tmp_path / "agent.py"
        program.write_text(AGENT)
        argv = [sys.executable, str(program)]
        values = settings("command") | {"argv": argv, "timeout": 20.0, "repairs": 0}
        return lambda: create_proposer("command", column=0, services=make_services(tmp_path), **values)


class ModelContract(ProposerContract):
    """A model that answers each request with the first rate that it has not read of."""

    name: str

    @pytest.fixture
    def make(self, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")
        with self.server() as server:
            values = settings(self.name) | {"base_url": server.url, "retries": 0, "repairs": 1}
            yield lambda: create_proposer(self.name, column=0, **values)

    @staticmethod
    def number(request):
        said = json.dumps(request["messages"])
        return next(n for n in range(3, 9) if f"LR = 0.0{n}" not in said)


class TestAnthropic(ModelContract):
    name = "anthropic"

    def server(self):
        server = api.MessagesServer()

        def answer(usage):
            made = api.proposal(
                "LR = 0.02", f"LR = 0.0{self.number(server.requests[-1])}", PATH, difference="another rate"
            )
            return made.body(usage)

        server.default = api.Behaviour(body=answer)
        return server


class TestOpenAI(ModelContract):
    name = "openai"

    def server(self):
        server = chat.ChatServer()

        def answer(usage):
            made = chat.proposal(
                "LR = 0.02", f"LR = 0.0{self.number(server.requests[-1])}", PATH, difference="another rate"
            )
            return chat.call(made).body(usage)

        server.default = api.Behaviour(body=answer)
        return server


def test_every_shipped_proposer_is_here():
    text = Path(__file__).read_text()
    assert all(f'"{name}"' in text for name in PROPOSERS.names())
