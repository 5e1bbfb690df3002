"""What ends `run` and `claim`, and what they need."""

import json
import os
import signal
import traceback

import pytest
import torch

from autoresearch import config as config_module
from autoresearch.cli.run import say_the_end, told_to_end
from autoresearch.config import load, profiles
from autoresearch.errors import UserError
from autoresearch.execute.output import explain
from autoresearch.propose.base import ProposerError
from autoresearch.report import page
from autoresearch.search.setup.open import open_search
from autoresearch.search.setup.settings import recorded_config
from autoresearch.store.journal import Journal
from autoresearch.types import Outcome
from tests.support import toy_task
from tests.support.cli import inside, outcome

MODEL = ("proposer=anthropic", "tracking=none", "task=toy", "baselines=2", "experiments=1")


@pytest.fixture
def root(tmp_path, monkeypatch):
    toy_task.install(monkeypatch, tmp_path / "site")
    for plot in ("write_progress_plot", "write_timeline_plot"):  # they take most of the time
        monkeypatch.setattr(page, plot, lambda *_: None)
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


PROFILE = "kind: seconds\namount: {amount}\nmax_seconds: 9\nmemory_gb: {gb}\nvocab: {vocab}\ncontext: 64\n"
QUICK = (
    "task=toy",
    "sandbox=none",
    "proposer=random",
    "baselines=2",
    "claim=0",
    "tracking=none",
    "--view",
    "plain",
)


def fits(monkeypatch, most):
    """Let trainings with a larger vocabulary end as those do that torch gives no memory."""
    measurer = toy_task.ToyTask.measurer
    made = toy_task.ToyTask.__init__

    def init(self, config=None, **options):
        made(self, config, **options)
        self.vocab = config.budget["vocab"]

    def hungry(self, *arguments):
        ours, measure = (found := measurer(self, *arguments)), found.measure

        def run(tree, spec, *more):
            try:
                if self.vocab > most:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            except torch.OutOfMemoryError:
                log = traceback.format_exc()
                return ours._failed(Outcome.CRASH, explain(log, 1), spec.fidelity)
            return measure(tree, spec, *more)

        found.measure = run
        return found

    monkeypatch.setattr(toy_task.ToyTask, "__init__", init)
    monkeypatch.setattr(toy_task.ToyTask, "measurer", hungry)


def test_a_start_that_does_not_fit_begins_again_with_a_smaller_profile(root, monkeypatch):
    (root / "configs" / "budget").mkdir(parents=True)
    for name, gb, vocab, amount in (("big", 8, 4000, 7), ("same", 7, 4000, 5), ("less", 6, 2000, 5)):
        text = PROFILE.format(gb=gb, vocab=vocab, amount=amount)
        (root / "configs" / "budget" / f"{name}.yaml").write_text(text)
    fits(monkeypatch, 2000)
    said = inside(root, "run", "name=x", "budget=big", "experiments=1", *QUICK)
    assert "out of memory: torch.OutOfMemoryError: CUDA out of memory" in said
    assert "It begins again with a smaller profile: budget=less." in said and "#1" in said
    config = recorded_config(root / "runs" / "x")
    assert config.choices["budget"] == "less" and config.budget["amount"] == 7, "a training takes as long"
    refused = inside(root, "run", "name=x", "budget=big", "experiments=2", *QUICK, code=2)
    assert "was begun with another budget" in refused, "there are scores now"
    fits(monkeypatch, 10)
    ended = inside(root, "run", "name=y", "budget=less", "experiments=1", *QUICK, code=3)
    assert "The starting script does not get through a trial: out of memory" in ended
    assert "What else uses the memory?" in ended and "begins again" not in ended


def test_a_gpu_has_a_large_corpus_and_without_a_network_the_small_one(root, monkeypatch):
    monkeypatch.setattr(config_module, "has_gpu", lambda: True)
    assert load(["name=x"], {}).choices["data"] == "climbmix"
    assert load(["name=x", "budget=gpu_24gb"], {}).choices["data"] == "climbmix"
    for given in (["budget=smoke"], ["executor.device=cpu"], ["data=sotu"]):
        assert load(["name=x", *given], {}).choices["data"] == "sotu", given
    prepare = toy_task.ToyTask.prepare

    def init(self, config=None, **options):
        made(self, config, **options)
        self.corpus = config.choices["data"]

    def offline(self, cache):
        if self.corpus == "climbmix":
            raise UserError("The corpus 'climbmix' could not be prepared (see above).", code=3)
        return prepare(self, cache)

    made = toy_task.ToyTask.__init__
    monkeypatch.setattr(toy_task.ToyTask, "__init__", init)
    monkeypatch.setattr(toy_task.ToyTask, "prepare", offline)
    # The machine of the tests has no GPU to train on.
    monkeypatch.setattr("autoresearch.execute.places.has_gpu", lambda: False)
    said = inside(root, "run", "name=x", "experiments=1", *QUICK)
    assert "climbmix could not be fetched" in said and "the small one, sotu, is used" in said
    assert recorded_config(root / "runs" / "x").choices["data"] == "sotu"
    refused = inside(root, "run", "name=y", "data=climbmix", "experiments=1", *QUICK, code=3)
    assert "could not be prepared" in refused, "who asks for it does not get another"
    journal = Journal(root / "runs" / "x" / "journal.db")
    assert journal.experiment(0).score is not None
    journal.close()


@pytest.mark.parametrize(
    ("memory", "budget"),
    [
        (6, "gpu_8gb"),
        (8, "gpu_8gb"),
        (12, "gpu_12gb"),
        (16, "gpu_12gb"),
        (23.6, "gpu_24gb"),
        (48, "gpu_48gb"),
        (80, "gpu_5min"),
        (141, "gpu_5min"),
    ],
)
def test_a_profile_suits_the_memory_of_a_gpu(memory, budget):
    assert profiles.suiting(memory * 2**30) == budget


def test_a_profile_is_followed_by_one_that_needs_less():
    chain, config = [], load(["name=x", "budget=gpu_15min"], {})
    while less := profiles.smaller(config):
        chain.append(config.choices["budget"])
        config = load(["name=x", *less], {})
        assert config.budget["amount"] == config.budget["max_seconds"] == 900
    assert [*chain, config.choices["budget"]] == ["gpu_15min", "gpu_24gb", "gpu_12gb", "gpu_8gb"]
    assert not profiles.smaller(load(["name=x", "budget=cpu"], {}))
    assert not profiles.smaller(load(["name=x", "budget=gpu_5min", "budget.vocab=4096"], {}))
