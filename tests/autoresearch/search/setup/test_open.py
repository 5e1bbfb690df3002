"""Which search a command means, and what of it stays as it was begun: whole searches of a toy task."""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from autoresearch.config import CONFIGS
from autoresearch.config.compose import _keys
from autoresearch.errors import UserError
from autoresearch.report import page
from autoresearch.search.setup import open as setup
from autoresearch.search.setup.plan import make_plan
from autoresearch.search.setup.settings import chosen_at_start, recorded_config
from autoresearch.store.git.commits import forget
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.lock import Lease
from autoresearch.store.records.claims import read_claims
from autoresearch.store.records.notes import read_briefs, record_settings
from autoresearch.store.searches import searches
from autoresearch.tasks.base import Dataset
from autoresearch.types import Split
from tests.support import chat_server, toy_task
from tests.support import messages_server as api
from tests.support.cli import inside

pytestmark = pytest.mark.slow

SETTINGS = ["task=toy", "proposer=random", "judge=greedy", "baselines=2", "tracking=none", "sandbox=none"]
SETTINGS += ["claim=0", "executor.device=cpu"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_task.make_repository(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    toy_task.install(monkeypatch, tmp_path / "site")
    for plot in ("write_progress_plot", "write_timeline_plot"):  # they take most of the time
        monkeypatch.setattr(page, plot, lambda *_: None)
    root = Path(shutil.copytree(template, tmp_path / "repo"))
    monkeypatch.chdir(root)
    return root


def run(root: Path, *settings: str, code: int = 0) -> str:
    return inside(root, "run", "--view", "plain", *SETTINGS, *settings, code=code)


def journal(root: Path, name: str) -> Journal:
    return Journal(root / "runs" / name / "journal.db")


def tried(root: Path, name: str) -> int:
    return len(journal(root, name).experiments()) - 1


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `strftime` says for the day; the test moves it on."""
    today = ["nov28"]
    real = time.strftime

    def strftime(form: str, *when: time.struct_time) -> str:
        return today[0] if form == "%b%d" else real(form, *when)

    monkeypatch.setattr(time, "strftime", strftime)
    return today


def test_a_search_of_the_day_that_ended_never_goes_on_by_itself(root: Path, day: list[str]) -> None:
    run(root, "experiments=1")
    before = journal(root, "nov28").info()
    run(root, "experiments=1", "brief=simplify")
    assert journal(root, "nov28").info() == before and tried(root, "nov28") == 1
    assert journal(root, "nov28-2").info().brief == "simplify" and tried(root, "nov28-2") == 1
    (root / "runs" / "nov28-2").rename(root / "elsewhere")  # its branch is still there
    run(root, "experiments=0")
    assert (root / "runs" / "nov28-3" / "journal.db").exists()


def test_one_that_was_stopped_goes_on_after_midnight(root: Path, day: list[str]) -> None:
    run(root, "experiments=1", "name=older")
    run(root, "experiments=1")
    again = journal(root, "nov28")
    again.set("stopped", "yes")  # as `stop` and Ctrl-C leave it
    again.close()
    day[0] = "nov29"
    assert "nov28" in run(root, "experiments=2")
    assert tried(root, "nov28") == 2 and not (root / "runs" / "nov29").exists()
    run(root, "experiments=1")
    assert tried(root, "nov29") == 1


def test_a_finished_search_is_not_relabelled(root: Path) -> None:
    run(root, "experiments=1", "name=x")
    said = run(root, "name=x", "brief=simplify")
    assert "has tried" in said
    after = journal(root, "x")
    assert after.info().brief == "default" and len(read_briefs(after)) == 1
    after.close()
    run(root, "name=x", "brief=simplify", "experiments=2")
    after = journal(root, "x")
    first, second = read_briefs(after)
    assert after.info().brief == first.name == "default" and second.name == "simplify"
    assert second.time > after.experiments()[1].created


def test_what_was_chosen_by_itself_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [s for s in SETTINGS if not s.startswith(("proposer=", "executor."))]
    inside(root, "run", "name=x", "experiments=0", *plain)
    begun = recorded_config(root / "runs" / "x")
    assert begun.choices["proposer"] == "optuna" and begun.executor.device == "cpu"
    monkeypatch.setattr("autoresearch.config.has_gpu", lambda: True)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test")
    fresh = setup.load(["name=x"])
    assert fresh.choices["proposer"] == "portfolio" and fresh.choices["budget"] == "gpu_5min"
    recorded = recorded_config(root / "runs" / "x")
    for asked in ([], ["executor.device=auto"], ["executor=local"], ["experiments=3"]):
        config = setup.resume(recorded, ["name=x", *asked])
        assert config.choices == begun.choices and config.executor.device == "cpu"
    assert setup.resume(recorded, ["name=x", "proposer=anthropic"]).choices["proposer"] == "anthropic"
    with pytest.raises(UserError, match=r"another executor\.device"):
        setup.resume(recorded, ["executor.device=cuda"])


def test_workers_belong_to_a_budget_of_seconds(root: Path) -> None:
    run(root, "name=x", "experiments=0", "budget=gpu_1min", "executor.workers=1")
    run(root, "name=y", "experiments=0", "budget=smoke", "executor.workers=1")
    timed, counted = (recorded_config(root / "runs" / name) for name in ("x", "y"))
    assert (timed.budget["kind"], counted.budget["kind"]) == ("seconds", "tokens")
    assert setup.resume(counted, ["executor.workers=2"]).executor.workers == 2
    with pytest.raises(UserError, match=r"another executor\.workers"):
        setup.resume(timed, ["executor.workers=2"])


WRONG = ("abc", "-1", "null", "", "[]", "{a: 1}", "foo://x", "0")
OF_TASKS = ("budget", "data", "task")
ENGINES = ("ray", "slurm")
"""Executors that start an engine, which a dry run does not."""


def keys() -> list[list[str]]:
    """Every key that is not the task's, after the choice of its group that has it, if it needs one."""
    found = []
    groups = {folder.name: sorted(folder.glob("*.yaml")) for folder in CONFIGS.iterdir()}
    held = {file: {*OmegaConf.load(file)} for files in groups.values() for file in files}
    for key in _keys():
        group, _, name = key.partition(".")
        files = groups[group] if name else []
        owners = [f"{group}={file.stem}" for file in files if name in held[file] and file.stem not in ENGINES]
        if group not in OF_TASKS and key != "name" and (owners or not name):
            found.append([*owners[-1:], key])
    return found


def refusal(ask: Callable[[], object]) -> str:
    """What is said if something is refused; empty otherwise. Whatever else happens is a fault."""
    try:
        ask()
    except UserError as error:
        return f"{error.code}: {error}"
    return ""


def agree(root: Path, settings: list[str]) -> None:
    """A dry run refuses what a run refuses, with the same words, and approves the rest."""

    def run() -> None:
        with setup.open_search(asked, "quiet"):
            pass

    asked = ["name=x", *SETTINGS, "budget=smoke", *settings]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789")
        patch.setattr(setup, "_conclude", lambda *_: None)
        planned, begun = refusal(lambda: make_plan(asked, root)), refusal(run)
    shutil.rmtree(root / "runs", ignore_errors=True)
    forget(Repository(root), "x")
    assert planned == begun, settings


@given(st.deferred(lambda: st.sampled_from(keys())), st.sampled_from(WRONG))
@hypothesis.settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_dry_run_refuses_what_a_run_refuses(root: Path, key: list[str], value: str) -> None:
    agree(root, [*key[:-1], f"{key[-1]}={value}"])


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_dry_run_refuses_what_a_run_refuses_for_every_key(root: Path) -> None:
    for *choice, key in keys():
        for value in WRONG:
            agree(root, [*choice, f"{key}={value}"])


def lease(root: Path, name: str, value: str) -> None:
    known = journal(root, name)
    known.set("lease", value)
    known.close()


def test_without_a_name_a_command_means_the_search_that_runs_and_says_so(root: Path) -> None:
    for name in ("first", "second"):
        run(root, f"name={name}", "experiments=0")
    assert "search: second" in inside(root, "status")
    inside(root, "log", "name=first")  # reading it does not make it the latest
    (root / "runs" / "first" / "journal.db").touch()
    assert "Noted for second" in inside(root, "note", "hello")
    lease(root, "first", Lease.ours().to_json())
    assert "Noted for first" in inside(root, "note", "hello") and "search: first" in inside(root, "pause")
    assert Inbox(root / "runs" / "first").wished == "pause"
    lease(root, "second", Lease.ours().to_json())
    said = inside(root, "stop", code=2)
    assert "Several searches run: first, second" in said and "name=second" in said
    assert "search:" not in inside(root, "stop", "name=first")
    for name in ("first", "second"):
        lease(root, name, "")
    rows = inside(root, "status", "name=first", "--json")
    assert json.loads(rows)["runner"] is None


@pytest.fixture
def corpus(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of the toy task, which is prepared into a folder named after its content."""

    def prepare(task: toy_task.ToyTask, cache: Path) -> Dataset:
        if not path.exists():
            raise UserError("the corpus is gone")
        key = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        (cache / key).mkdir(parents=True, exist_ok=True)
        return Dataset(cache / key, {"key": key}, frozenset((Split.VALIDATION,)), "few")

    path = root / "corpus.txt"
    path.write_text("a corpus")
    monkeypatch.setattr(toy_task.ToyTask, "prepare", prepare)
    return path


def test_a_search_goes_on_with_the_data_it_was_begun_with_or_not_at_all(root: Path, corpus: Path) -> None:
    run(root, "name=x", "experiments=1")
    first = journal(root, "x").info().data
    corpus.write_text("A corpus")
    run(root, "name=x", "experiments=2")  # from the cache
    corpus.unlink()
    run(root, "name=x", "experiments=3")
    assert journal(root, "x").info().data == first and tried(root, "x") == 3
    shutil.rmtree(root / "runs" / "cache")
    run(root, "name=x", "experiments=4", code=2)
    corpus.write_text("A corpus")
    said = run(root, "name=x", "experiments=4", code=2)
    assert "key differ" in said and tried(root, "x") == 3
    corpus.write_text("a corpus")
    run(root, "name=x", "experiments=4")
    assert tried(root, "x") == 4


@pytest.mark.parametrize("status", [401, 403])
def test_a_rejected_key_never_opens_the_sealed_split(root: Path, status: int) -> None:
    rejected = api.error(status, "this key is not known", "authentication_error")
    better = chat_server.proposal("LEVEL = 1.0", "LEVEL = 1.5", toy_task.PATH)
    with chat_server.ChatServer([chat_server.call(better)], rejected) as server:
        asked = ["name=x", "experiments=3", "claim=2", "proposer=openai", "proposer.fallback=null"]
        said = run(root, *asked, f"proposer.base_url={server.url}", "proposer.models=[m]", "lookahead=0")
        known = journal(root, "x")
        assert [e.kept for e in known.experiments()[1:]] == [True] and "No further proposal" in said
        assert not read_claims(known) and known.get("stopped")
        assert "sealed test" not in said and not any(
            "claim" in t.arm for e in known.experiments() for t in e.trials
        )
        known.close()
        # once a person has mended it, the search goes on, and is claimed when it ends by itself
        worse = chat_server.proposal("OTHER = 0", "OTHER = 1", toy_task.PATH)
        server.script = [chat_server.call(worse)]
        run(root, *asked, "experiments=2", f"proposer.base_url={server.url}", "proposer.models=[m]")
    [record] = read_claims(journal(root, "x"))
    assert record.finished and all(access.looked for access in record.accesses)


def test_settings_that_are_changed_on_the_way_are_told_with_their_time(root: Path) -> None:
    run(root, "name=x", "experiments=1")
    assert "Since " not in inside(root, "status", "name=x")
    begun = journal(root, "x").info().config
    run(root, "name=x", "experiments=2")  # how long it goes on is no change
    assert json.loads(inside(root, "status", "name=x", "--json"))["setting_changes"] == []
    url = "http://me:hunter22@localhost:9/v1"
    plain = ["run", "--view", "plain", "name=x", "experiments=2"]
    inside(root, *plain, "proposer=openai", "proposer.models=[small]", f"proposer.base_url={url}", "alarm=7")
    inside(root, *plain, "proposer.models=[large]")
    told = json.loads(inside(root, "status", "name=x", "--json"))
    changes = {change["key"]: (change["before"], change["after"]) for change in told["setting_changes"]}
    times = [change["time"] for change in told["setting_changes"]]
    assert changes["proposer.name"] == ("random", "openai") and changes["alarm"] == (begun["alarm"], 7)
    assert changes["proposer.models"] == (["small"], ["large"]) and times == sorted(times)
    assert times[0] > journal(root, "x").experiments()[2].finished and "choices" not in "".join(changes)
    said = inside(root, "status", "name=x")
    assert 'proposer.models=["large"], was ["small"].' in said
    inside(root, "report", "name=x")
    page = (root / "runs" / "x" / "report" / "report.md").read_text()
    assert page.count("setting changed") == len(times) and "alarm=7" in page
    assert "hunter22" not in page + said + json.dumps(told)


def test_what_was_chosen_by_itself_is_no_change(root: Path) -> None:
    run(root, "name=x", "experiments=1", "executor.device=auto")
    known = journal(root, "x")
    chosen = recorded_config(root / "runs" / "x").model_dump(mode="json")  # with which a claim goes on
    assert (known.info().config["executor"]["device"], chosen["executor"]["device"]) == ("auto", "cpu")
    begun = chosen_at_start(known.info())
    assert record_settings(known, chosen, begun) == []
    assert known.info().config["executor"]["device"] == "cpu"
    chosen["executor"]["workers"] = 2
    [change] = record_settings(known, chosen, begun)
    assert (change.key, change.before, change.after) == ("executor.workers", None, 2), "somebody chose that"


def test_another_time_zone_changes_dates_and_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(zone: str) -> tuple[str, str, str]:
        patch.setenv("TZ", zone)
        time.tzset()
        return tuple(inside(root, *command.split()) for command in ("status --json", "log", "status"))  # type: ignore[return-value]

    run(root, "name=x", "experiments=1")
    run(root, "name=x", "experiments=1", "alarm=7")  # of which status tells the time
    try:
        with monkeypatch.context() as patch:
            one, two = told("Pacific/Kiritimati"), told("Pacific/Pago_Pago")  # 25 hours apart
            assert one[:2] == two[:2]
            days = [re.search(r"Since (\S+) ", said[2]) for said in (one, two)]
            assert days[0] and days[1] and days[0][1] > days[1][1], "a day is that of who looks"
            run(root, "experiments=1", "name=later")
            assert [known.name for known in searches(root / "runs")] == ["x", "later"]
    finally:
        time.tzset()
