"""What ends `run` and `claim`, and what they need."""

import json
import os
import signal

import pytest

from autoresearch.cli.run import say_the_end, told_to_end
from autoresearch.config import load
from autoresearch.propose.base import ProposerError
from autoresearch.search.setup.open import open_search
from tests.support import toy_task
from tests.support.cli import inside, outcome

MODEL = ("proposer=anthropic", "tracking=none", "task=toy", "baselines=2", "experiments=1")


@pytest.fixture
def root(tmp_path, monkeypatch):
    toy_task.install(monkeypatch, tmp_path / "site")
    root = toy_task.make_repository(tmp_path / "repo")
    monkeypatch.chdir(root)
    return root


@pytest.mark.soak
def test_a_claim_needs_no_key(root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")
        with open_search(["name=x", *MODEL], "quiet"):
            pass  # begun, and nobody asked
    assert "needs an API key" in inside(root, "run", "name=x", "--view", "quiet", code=2)
    _, said = outcome(root, "claim", "name=x")
    assert "Nothing was kept" in said, said
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with open_search(["name=x"], "quiet", proposes=False) as search:
        assert search.proposer.name == "anthropic"
        with pytest.raises(ProposerError, match="nothing is proposed"):
            search.proposer.ask(None, None)
    assert load(["name=x"], {}).proposer["name"] == "optuna"


@pytest.mark.soak
def test_importance_says_which_knobs_matter(root):
    settings = ("tracking=none", "task=toy", "baselines=2", "claim=0", "--view", "quiet")
    inside(root, "run", "name=few", "proposer=random", "experiments=2", *settings)
    assert "too little to say" in inside(root, "importance", "name=few", code=2)
    inside(root, "run", "name=few", "proposer=random", "experiments=9", *settings)
    said = inside(root, "importance", "name=few")
    assert "100.0%  LEVEL  (now" in said and (root / "runs/few/report/importance.svg").exists()
    assert json.loads(inside(root, "importance", "name=few", "--json")) == {"LEVEL": 1.0}


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_signal_leaves_a_line_that_says_how_to_go_on(sent, capsys):
    before = signal.getsignal(sent)
    signal.signal(sent, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended:
            try:
                with told_to_end():
                    os.kill(os.getpid(), sent)
                    signal.pause()
            except KeyboardInterrupt as end:
                say_the_end(end, "autoresearch run name=x")
        assert ended.value.code == 128 + sent
        told = capsys.readouterr().out
        assert f"Stopped by {sent.name}; nothing is lost. Go on with: autoresearch run name=x" in told
        assert signal.getsignal(sent) is signal.SIG_DFL
        signal.signal(sent, signal.SIG_IGN)
        with told_to_end():
            os.kill(os.getpid(), sent)  # ignored, as under nohup
    finally:
        signal.signal(sent, before)
