"""The winner of a search as a model in MLflow: one call loads it, a jail runs it."""

import json
import shutil
from pathlib import Path

import pytest

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.store.journal import Journal
from autoresearch.tracking.mirror import DATA
from autoresearch.tracking.model import ABOUT, WEIGHTS, Writer, winner
from autoresearch.tracking.store import local_uri
from autoresearch.types import Outcome, VerdictKind
from tests.autoresearch.tracking.test_mirror import add, mirror, new_journal, runs
from tests.support import toy
from tests.support.gpt import CONTEXT, SCRIPT, make_measurer, measure

MEDDLES = """
try:
    open({mark!r}, "w").write("a candidate was here")
except OSError:
    pass
"""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A search in `runs` with one kept change, whose weights a claim has left."""
    place = tmp_path / "runs"
    journal = new_journal(place)
    number = add(journal)
    script = toy.TRAIN + MEDDLES.format(mark=str(tmp_path / "mark"))
    code = toy.write_code(tmp_path / "code", script)
    data = toy.write_cache(place / "cache" / "toy")
    kept = journal.path.parent / WEIGHTS / f"{journal.experiment(number).commit[:12]}-5"
    measurer = make_measurer(data)
    try:
        assert measure(measurer, code, tmp_path / "scratch", submission=str(kept)).outcome is Outcome.OK
    finally:
        measurer.close()
    budget = {**load(["budget=smoke", "name=x"], {}).budget, "context": CONTEXT}
    journal.update(config={**journal.info().config, "budget": budget}, task="nanomodel", finished=9.0)
    journal.set(DATA, json.dumps({"path": "cache/toy", "splits": ["validation"], "sizes": ""}))
    return journal


@pytest.mark.soak
def test_the_winner_loads_with_one_call_and_writes_in_a_jail(
    journal: Journal, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    folder, page = tmp_path / "runs" / "mlflow", tmp_path / "report.html"
    folder.mkdir()
    shutil.copy(empty_store / "mlflow.db", folder)
    page.write_text("x")
    source = (tmp_path / "code" / SCRIPT).read_text()
    shown = mirror(folder, writes=True, sources=lambda commit: {SCRIPT: source})
    for _ in range(2):  # twice: it is logged once
        assert shown.close(journal, [page]) is None
    client = MlflowClient(local_uri(folder))
    parent = runs(folder)["search"]
    (model,) = client.search_logged_models([parent.info.experiment_id])
    assert model.name == "night1" and model.status == "READY" and model.source_run_id == parent.info.run_id
    files = {path.name for path in (folder / "artifacts").rglob("*") if path.is_file()}
    assert not [name for name in files if name.endswith((".pkl", ".pickle"))], "nothing is to be unpickled"
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(local_uri(folder))
        loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
        texts = loaded.predict(["the of", "and"], params=None)
    finally:
        mlflow.set_tracking_uri(before)
    assert [text[: len(p)] for text, p in zip(texts, ("the of", "and"), strict=True)] == ["the of", "and"]
    assert all(len(text) > len("the of") for text in texts)
    if create_sandbox("auto").name != "none":
        assert not (tmp_path / "mark").exists(), "the candidate's code was run outside of the jail"
    inside = next((folder / "artifacts").rglob(ABOUT)).parent
    shutil.rmtree(tmp_path / "runs" / "cache")
    with pytest.raises(UserError, match="is not here"):
        Writer(inside).predict("the")
    journal.close()


@pytest.mark.slow
def test_without_weights_or_without_a_keep_there_is_no_model(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    folder, number = journal.path.parent, add(journal)
    assert winner(journal.experiments(), folder) is None, "no claim has left its weights"
    (folder / WEIGHTS).mkdir()
    (folder / WEIGHTS / f"{journal.experiment(number).commit[:12]}-5").touch()
    assert winner(journal.experiments(), folder) is not None
    assert winner(journal.experiments()[:1], folder) is None, "nothing was kept"
    add(journal, VerdictKind.DISCARD)
    assert winner(journal.experiments(), folder) is not None, "the tip is the same"
    add(journal)
    assert winner(journal.experiments(), folder) is None, "the weights are of an earlier tip"
    journal.close()
