import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from autoresearch.errors import UserError
from autoresearch.store.journal import Journal
from autoresearch.tracking.mirror import EXPERIMENT_KEY, PARENT_KEY, Mirror
from autoresearch.tracking.runs import search_id
from autoresearch.tracking.store import local_uri
from autoresearch.tracking.ui import answers, ui
from autoresearch.types import Category, Cost, Measurement, Outcome, Proposal, Verdict, VerdictKind
from tests.support.faults import in_child
from tests.support.searches import (
    BASE,
    EVIL,
    INFO,
)

pytestmark = pytest.mark.slow  # the tests wait for MLflow
SCRIPT = "LR = 0.02  # x4\nDEPTH = 3  # 2..6\n"
ROOT = Path(__file__).resolve().parents[3]
SECRET = "sk-ant-very-secret"
WILD = Measurement(
    Outcome.OK,
    1.6,
    metrics={"a": math.nan, "b": math.inf, "val_bpb": 9.0, "e/v:i*l\n": 1.0, "x" * 400: 2.0},
    curve=((0.0, 7.0), (0.5, math.nan), (1.0, 2.0)),
)


def sources(commit: str) -> Mapping[str, str]:
    return {"nanomodel/train.py": SCRIPT}


def new_journal(place: Path) -> Journal:
    """A search that has measured its baseline."""
    journal = Journal.create(place / "night1" / "journal.db", INFO)
    for seed, score in enumerate((1.70, 1.72)):
        trial = journal.start_trial(0, "baseline", seed, BASE)
        journal.finish_trial(trial, Measurement(Outcome.OK, score))
    return journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = new_journal(tmp_path)
    yield journal
    journal.close()


def add(
    journal: Journal,
    kind: VerdictKind = VerdictKind.KEEP,
    result: Measurement | None = None,
    hypothesis: str = "raise the learning rate",
) -> int:
    """One more experiment, through all its states."""
    cost = Cost(1, 1000, 100, 0.25, 2.0)
    proposal = Proposal(hypothesis, Category.OPTIMIZER, (), "optuna", params={"LR": 0.02}, cost=cost)
    number = journal.add(proposal, BASE).number
    commit = f"{number:04x}".ljust(40, "c")
    journal.committed(number, commit, "--- a/t.py\n+++ b/t.py\n@@ -1 +1 @@\n-LR = 1\n+LR = 2\n")
    trial = journal.start_trial(number, "screen", 7, commit)
    ok = Measurement(
        Outcome.OK,
        1.6,
        metrics={"steps": 100.0, "peak_memory_mb": 300.0},
        curve=((0.0, 7.5), (1.0, 2.5)),
        log="hi\n",
    )
    verdict = Verdict(kind, 0.1, (0.05, 0.15), 3.0, 1, "clearly better")
    journal.finish_trial(trial, result or ok, None, {number: verdict})
    journal.recorded(number, commit)
    return number


def mirror(folder: Path, **changes: Any) -> Mirror:
    options = {
        "enabled": True,
        "uri": None,
        "experiment": "autoresearch",
        "folder": folder,
        "sources": sources,
    }
    return Mirror(**{**options, **changes})


def runs(folder: Path) -> dict[str, Run]:
    """What a client finds: run by the tag that names its experiment."""
    client = MlflowClient(local_uri(folder))
    experiment = client.get_experiment_by_name("autoresearch")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    by_name = {run.data.tags["autoresearch.experiment"]: run for run in found}
    assert len(by_name) == len(found), "a run was written twice"
    return by_name


def history(folder: Path, run: Run, key: str) -> list[tuple[int, float]]:
    client = MlflowClient(local_uri(folder))
    return sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))


@dataclass(frozen=True)
class Shown:
    """A search after it was mirrored, and what MLflow has of it."""

    journal: Journal
    folder: Path
    problem: str | None
    runs: dict[str, Run]


@pytest.fixture(scope="module")
def shown(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """One search with everything in it: 1 is kept, 2 has odd numbers, 3 is hostile, 4 has lost its files."""
    place = tmp_path_factory.mktemp("search")
    folder = place / "mlflow"
    folder.mkdir()
    shutil.copy(empty_store / "mlflow.db", folder)
    journal = new_journal(place)
    leak = f"it is {SECRET}"
    add(journal)
    add(journal, result=WILD)
    add(journal, VerdictKind.CRASH, Measurement(Outcome.CRASH, reason=EVIL, log=EVIL * 100), EVIL * 50)
    add(journal, VerdictKind.DISCARD, Measurement(Outcome.OK, 1.6, reason=leak, log=leak), leak)
    config = {**INFO.config, "proposer": {"api_key": "k-secret"}, "uri": "http://u:hunter2pass@h"}
    journal.update(config=config, brief_text=leak)
    report = place / "report.html"
    report.write_text("<p>hello")

    def some_sources(commit: str) -> Mapping[str, str]:
        if commit.startswith("0003"):
            return {"nanomodel/train.py": f"def (:\n'{leak}'"}
        if commit.startswith("0004"):
            raise UserError("no such commit")
        return sources(commit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTHROPIC_API_KEY", SECRET)
        problem = mirror(folder, sources=some_sources).close(journal, files=[report])
    yield Shown(journal, folder, problem, runs(folder))
    journal.close()


def artifacts(run: Run) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


def test_a_search_is_a_parent_run_with_a_child_for_each_experiment(shown: Shown) -> None:
    assert shown.problem is None and set(shown.runs) == {"search", "0", "1", "2", "3", "4"}
    parent, child = shown.runs["search"], shown.runs["1"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.run_name == "001 keep: raise the learning rate"
    assert shown.runs["0"].info.run_name == "000 baseline: starting point"
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert child.data.params == {"LR": "0.02", "DEPTH": "3"}
    assert child.data.metrics["val_bpb"] == 1.6 and child.data.metrics["effect_low"] == 0.05
    assert child.data.metrics["system/peak_memory_mb"] == 300.0
    assert history(shown.folder, parent, "progress/gain_percent")[1] == (1, pytest.approx(100 * 0.11 / 1.71))
    order = sorted(shown.runs, key=lambda name: shown.runs[name].data.tags["autoresearch.order"])
    assert order == ["search", "0", "1", "2", "3", "4"], "the answer comes first"
    assert child.data.tags["brief_hash"] == parent.data.tags["brief_hash"] != ""
    assert child.data.tags["verdict"] == "keep" and child.data.tags["seeds"] == "7"
    assert "clearly better" in child.data.tags["mlflow.note.content"]
    assert history(shown.folder, child, "curve/train_loss") == [(0, 7.5), (1000, 2.5)]
    assert history(shown.folder, parent, "progress/best_val_bpb")[:2] == [(0, pytest.approx(1.71)), (1, 1.6)]
    assert history(shown.folder, parent, "progress/kept") == [(0, 0), (1, 1), (2, 2), (3, 2), (4, 2)]
    assert history(shown.folder, parent, "cost/llm_dollars_per_keep")[0] == (1, 0.25)
    assert parent.data.params["budget.amount"] == "1000000.0"
    for run in (parent, child):
        assert [i.dataset.name for i in run.inputs.dataset_inputs] == ["sotu"]
    assert (artifacts(child) / "nanomodel/train.py").read_text() == SCRIPT
    assert "+LR = 2" in (artifacts(child) / "change.diff.txt").read_text()
    assert [p.read_text() for p in (artifacts(child) / "logs").iterdir()] == ["hi\n"]
    assert "[secret]" in (artifacts(parent) / "brief.md").read_text()
    assert (artifacts(parent) / "report.html").read_text() == "<p>hello"


def test_the_journal_knows_what_is_done_and_where_it_is_shown(shown: Shown) -> None:
    assert shown.journal.dirty() == ()
    assert shown.journal.get(EXPERIMENT_KEY) == shown.runs["1"].info.experiment_id
    assert shown.journal.get(PARENT_KEY) == shown.runs["search"].info.run_id


def test_numbers_that_mlflow_cannot_store_do_not_hold_up_the_rest(shown: Shown) -> None:
    child = shown.runs["2"]
    assert child.data.metrics["val_bpb"] == 1.6, "a measured number took the place of the score"
    assert "measured/a" not in child.data.metrics and child.data.metrics["measured/e_v_i_l_"] == 1.0
    assert history(shown.folder, child, "curve/train_loss") == [(0, 7.0), (1000, 2.0)]


def test_hostile_and_broken_text_is_shown_harmlessly(shown: Shown) -> None:
    child = shown.runs["3"]
    assert child.info.status == "FAILED"
    texts = [*child.data.tags.values(), child.info.run_name]
    assert not [t for t in texts if "\x1b" in t or "\u202e" in t]
    assert "<script>" not in child.data.tags["mlflow.note.content"].replace("\\<script\\>", "")
    assert child.data.params == {"LR": "0.02"}, "of the proposal; the script that does not parse has none"


def test_secrets_stay_out(shown: Shown) -> None:
    written = b"".join(p.read_bytes() for p in shown.folder.rglob("*") if p.is_file())
    assert not [s for s in (SECRET.encode(), b"hunter2pass", b"k-secret") if s in written]
    assert b"[secret]" in written


def test_the_saved_view_can_be_read_by_mlflow(shown: Shown) -> None:
    client = MlflowClient(local_uri(shown.folder))
    experiment = client.get_experiment_by_name("autoresearch")
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{search_id(INFO)}"])
    assert view["name"] == "night1" and isinstance(view["createdAt"], int)
    state = json.loads(view["state"])
    assert "metrics.`val_bpb`" in state["selectedColumns"]
    assert len(client.search_runs([experiment.experiment_id], state["searchFilter"])) == 6
    every = json.loads(experiment.tags["mlflow.sharedViewState.searches"])
    state = json.loads(every["state"])
    assert every["name"] == "all searches" and "metrics.`gain_percent`" in state["selectedColumns"]
    assert len(client.search_runs([experiment.experiment_id], state["searchFilter"])) == 1
    assert "Compare" in experiment.tags["mlflow.note.content"]


def test_the_ui_starts_on_the_right_store(shown: Shown, tmp_path: Path) -> None:
    local = ui(None, shown.folder, 5001, INFO, "7")
    assert local.command and "5001" in local.command and "127.0.0.1" in local.command
    assert local.environment["MLFLOW_BACKEND_STORE_URI"] == local_uri(shown.folder)
    assert f"/#/experiments/7/runs?viewStateShareKey={search_id(INFO)}" in local.url
    remote = ui("https://me:hunter2pass@host/base/", shown.folder, 5001)
    assert (remote.command, remote.url) == (None, "https://host/base/#/experiments")
    database = ui("postgresql://me:hunter2pass@host/db", shown.folder, 5001)
    assert database.command and "hunter2pass" not in " ".join(database.command)
    with pytest.raises(UserError, match="Nothing has been mirrored"):
        ui(None, tmp_path / "nowhere", 5001)


def everything(folder: Path) -> dict[str, Any]:
    """All that the store shows, less what MLflow chooses."""
    return {
        name: (
            run.info.run_name,
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            {k: v for k, v in run.data.tags.items() if k != "mlflow.parentRunId"},
            run.data.params,
            {key: history(folder, run, key) for key in run.data.metrics},
            len(run.inputs.dataset_inputs),
        )
        for name, run in runs(folder).items()
    }


def test_writing_again_changes_nothing(journal: Journal, folder: Path) -> None:
    add(journal)
    add(journal, VerdictKind.CRASH, Measurement(Outcome.CRASH, reason="boom", log="Traceback"))
    mirror(folder).close(journal)
    before = everything(folder)
    journal.set("mlflow.search", "another run, as in a store that was replaced")
    mirror(folder).close(journal)
    assert everything(folder) == before


def test_an_experiment_is_shown_while_it_runs_and_then_as_it_ended(journal: Journal, folder: Path) -> None:
    number = journal.add(Proposal("try", Category.OTHER, (), "optuna"), BASE).number
    journal.committed(number, "c" * 40, "diff")
    trial = journal.start_trial(number, "screen", 7, "c" * 40)
    mirrored = mirror(folder)
    mirrored.sync(journal)
    mirrored.close(journal)
    running = runs(folder)["1"]
    assert (running.info.status, running.info.run_name) == ("RUNNING", "001 running: try")
    verdict = Verdict(VerdictKind.PRUNE, reason="hopeless", trials=1)
    journal.finish_trial(trial, Measurement(Outcome.PRUNE, reason="hopeless"), None, {number: verdict})
    mirrored.close(journal)
    ended = runs(folder)["1"]
    assert (ended.info.run_id, ended.info.status, ended.info.run_name) == (
        running.info.run_id,
        "KILLED",
        "001 prune: try",
    )


def test_killed_in_the_middle_the_next_sync_repairs(journal: Journal, folder: Path, tmp_path: Path) -> None:
    add(journal)
    add(journal, VerdictKind.DISCARD)
    untouched = tmp_path / "other"
    shutil.copytree(folder, untouched)
    calls, log_batch = [], MlflowClient.log_batch

    def dying(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:  # the third run exists already, but nothing is in it yet
            os.kill(os.getpid(), signal.SIGKILL)
        return log_batch(*arguments, **options)

    def write() -> None:
        MlflowClient.log_batch = dying  # type: ignore[method-assign]
        mirror(folder).close(Journal(journal.path))

    assert in_child(write) == -signal.SIGKILL
    assert journal.dirty() == (0, 1, 2)
    assert set(runs(folder)) == {"search", "0", "1"}
    assert mirror(folder).close(journal) is None
    assert journal.dirty() == ()
    for number in range(3):  # as if nothing had happened
        journal.committed(number, journal.experiment(number).commit, journal.experiment(number).diff)
    repaired, journal_again = everything(folder), journal
    assert mirror(untouched).close(journal_again) is None
    assert {k: v[5:] for k, v in everything(untouched).items()} == {k: v[5:] for k, v in repaired.items()}


def test_a_store_that_was_replaced_is_filled_again(journal: Journal, folder: Path, empty_store: Path) -> None:
    add(journal)
    mirrored = mirror(folder)
    mirrored.close(journal)
    for path in folder.glob("mlflow.db*"):
        path.unlink()
    shutil.copy(empty_store / "mlflow.db", folder)
    add(journal)
    assert mirrored.close(journal) is None
    # MLflow keeps the lost file open under its old name, so look through another.
    (folder.parent / "alias").symlink_to(folder)
    client = MlflowClient(f"sqlite:///{folder.parent}/alias/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("autoresearch").experiment_id])
    assert sorted(run.data.tags["autoresearch.experiment"] for run in found) == ["0", "1", "2", "search"]


def test_a_deleted_run_comes_back_only_when_it_changes(journal: Journal, folder: Path) -> None:
    number = add(journal)
    mirrored = mirror(folder)
    mirrored.close(journal)
    run = runs(folder)["1"]
    MlflowClient(local_uri(folder)).delete_run(run.info.run_id)
    mirrored.close(journal)
    assert "1" not in runs(folder)
    journal.committed(number, "e" * 40, "diff")
    mirrored.close(journal)
    assert runs(folder)["1"].data.tags["commit"] == "e" * 40


def test_a_deleted_experiment_is_said_not_resurrected(journal: Journal, folder: Path) -> None:
    client = MlflowClient(local_uri(folder))
    client.delete_experiment(client.get_experiment_by_name("autoresearch").experiment_id)
    problem = mirror(folder).close(journal)
    assert problem and "was deleted there" in problem
    assert journal.dirty() == (0,)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_dead_server_is_one_line_and_the_outbox_stays(journal: Journal, folder: Path) -> None:
    add(journal)
    dead = mirror(folder, uri=f"http://me:hunter2pass@127.0.0.1:{free_port()}")
    problem = dead.close(journal)
    assert problem and "is not up to date" in problem
    assert "\n" not in problem and "hunter2pass" not in problem
    assert journal.dirty() == (0, 1)
    dead.sync(journal)
    assert dead._thread is None, "it should wait before it tries again"
    assert mirror(folder).close(journal) is None
    assert set(runs(folder)) == {"search", "0", "1"}


def test_a_store_that_cannot_be_reached_is_said_at_the_start(journal: Journal, folder: Path) -> None:
    said: list[str] = []
    dead = mirror(folder, uri=f"http://127.0.0.1:{free_port()}", say=said.append)
    dead.sync(journal)
    assert dead._thread is not None
    dead._thread.join()
    assert len(said) == 1 and "is not up to date" in said[0] and "The search goes on" in said[0]


def test_a_copied_store_keeps_its_files_beside_itself(journal: Journal, folder: Path, tmp_path: Path) -> None:
    """MLflow stores whole paths: the files of the copy would go into the folder of the original."""
    add(journal)
    assert mirror(folder).close(journal) is None
    copy = tmp_path / "copied checkout" / "mlflow"
    shutil.copytree(folder, copy)
    before = sorted(path for path in folder.rglob("*") if path.is_file() and "mlflow.db" not in path.name)
    add(journal)
    journal.unmirrored()
    said: list[str] = []
    assert mirror(copy, say=said.append).close(journal) is None
    assert sorted(p for p in folder.rglob("*") if p.is_file() and "mlflow.db" not in p.name) == before
    assert [text for text in said if "copied or moved" in text and str(folder) in text] and len(said) == 1
    for run in runs(copy).values():
        assert run.info.artifact_uri.startswith(copy.resolve().as_uri()), run.info
        assert (copy / "artifacts" / run.info.run_id).is_dir()
    assert mirror(copy, say=said.append).close(journal) is None and len(said) == 1, "once"


@pytest.mark.soak
def test_two_searches_may_make_a_new_store_at_once(tmp_path: Path) -> None:
    make = (
        "import sys; from pathlib import Path; from autoresearch.tracking.store import Store, local_uri;"
        "at = Path(sys.argv[1]); print(Store(local_uri(at), 'autoresearch', at / 'a').experiment_id)"
    )
    command = [sys.executable, "-c", make, str(tmp_path / "new")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0] and said[0] == said[1]


def test_the_ui_says_when_its_port_is_taken(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"Port {port} of 127\.0\.0\.1 cannot be listened on") as error:
            ui(None, folder, port)
        assert answers("127.0.0.1", port, lambda: True), "what `ui --open` waits for"
    assert error.value.code == 3 and "--port" in error.value.hint
    assert not answers("127.0.0.1", port, iter((True, False)).__next__), "until the server has ended"
    assert ui(None, folder, port).command
    other = ui(None, folder, port, host="0.0.0.0")
    assert other.command and other.command[other.command.index("--host") + 1] == "0.0.0.0"
    assert other.url.startswith(f"http://127.0.0.1:{port}"), "what a browser here opens"


def test_a_server_that_never_answers_holds_nobody_up(journal: Journal, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        waiting = mirror(folder, uri=f"http://127.0.0.1:{silent.getsockname()[1]}")
        waiting.sync(journal)
        silent.accept()  # the mirror's thread is talking to it; we are not
        add(journal)
        waiting.sync(journal)
        problem = waiting.close(journal, seconds=0.1)
    assert problem and "did not finish" in problem
    assert journal.dirty() == (0, 1)


def test_what_changes_while_it_is_written_stays_on_the_list(journal: Journal, folder: Path) -> None:
    number = add(journal)
    changed = []

    def meddling(commit: str) -> Mapping[str, str]:
        if not changed:
            changed.append(journal.start_trial(number, "confirm", 8, commit))
        return sources(commit)

    mirrored = mirror(folder, sources=meddling)
    mirrored.sync(journal)
    assert mirrored._thread is not None
    mirrored._thread.join()
    mirrored._collect(journal)
    assert journal.dirty() == (1,)
    assert mirrored.close(journal) is None
    assert journal.dirty() == ()


def test_a_search_that_goes_on_with_other_settings_is_no_obstacle(journal: Journal, folder: Path) -> None:
    mirror(folder).close(journal)
    journal.update(config={**INFO.config, "experiments": 200, "minutes": 5.0}, finished=None)
    add(journal)
    assert mirror(folder).close(journal) is None
    parent = runs(folder)["search"]
    assert (parent.data.params["experiments"], parent.data.params["minutes"]) == ("100", "5.0")
    assert parent.info.status == "RUNNING"


def test_searches_of_one_name_are_told_apart(journal: Journal, folder: Path, tmp_path: Path) -> None:
    again = Journal.create(tmp_path / "elsewhere" / "journal.db", replace(INFO, created=INFO.created + 60))
    for one in (journal, again):
        assert mirror(folder).close(one) is None
    client = MlflowClient(local_uri(folder))
    found = client.search_runs([client.get_experiment_by_name("autoresearch").experiment_id])
    assert sorted(run.data.tags["autoresearch.experiment"] for run in found) == ["0", "0", "search", "search"]
    again.close()


def test_switched_off_mlflow_is_not_even_imported(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from autoresearch.report import markdown, page, summary
        from autoresearch.report.live import panel, web
        from autoresearch.report.plots import progress
        from autoresearch.tracking import mirror as tracking, store
        mirror = tracking.Mirror(enabled=False, uri=None, experiment="a", folder=Path("x"), sources=dict)
        assert mirror.sync(None) is None and mirror.close(None) is None
        heavy = {"mlflow", "matplotlib", "scipy", "numpy", "rich", "markdown_it", "jinja2"} & set(sys.modules)
        assert not heavy, heavy
        assert not Path("x").exists()
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
    )
