import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch import config as config_module
from autoresearch.config import BRIEFS, CONFIGS, compose, has_gpu, load, resume
from autoresearch.config.files import replaced
from autoresearch.errors import UserError
from autoresearch.search.setup.required import check_judge
from autoresearch.tasks import create_task


def test_defaults_compose_and_are_typed() -> None:
    config = load(["name=x", "executor.device=cpu"], {})
    assert config.budget["kind"] in ("tokens", "seconds")
    assert config.data["vocab"] == config.budget["vocab"]
    assert config.choices["proposer"] == "optuna"


GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in CONFIGS.iterdir()
    if any(folder.glob("*.yaml"))
}


@pytest.mark.parametrize("turn", range(max(map(len, GROUPS.values()))))
def test_every_choice_of_every_group_composes(turn: int) -> None:
    chosen = {group: choices[turn % len(choices)] for group, choices in GROUPS.items()}
    found = load([f"{group}={choice}" for group, choice in chosen.items()], {}).choices
    assert {group: found[group] for group in chosen} == chosen


def test_a_key_makes_the_llm_the_default_proposer_and_a_choice_wins_over_it() -> None:
    environment = {"ANTHROPIC_API_KEY": "sk-test"}
    assert load([], environment).choices["proposer"] == "portfolio"
    assert load(["proposer.max_dollars=5"], environment).choices["proposer"] == "anthropic"
    assert load(["proposer=optuna"], environment).choices["proposer"] == "optuna"
    assert "sk-test" not in str(load([], environment))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("experimets=3", "experiments"),
        ("budget.amont=3", "budget.amount"),
        ("budget=smok", "smoke"),
        ("brief=defualt", "default"),
        ("experiments=-1", "experiments"),
        ("experiments=many", "experiments"),
        ("baselines=1", "baselines"),
        ("name=../x", "name"),
        ("name=cache", "something else of that name"),
        ("name=MLflow", "something else of that name"),
        ("+foo=1", "cannot be added"),
        ("experiments", "key=value"),
        ("budget.amount=[", "cannot be read. Text with signs goes in quotes"),
        ("experiments=3,4", "one value is needed"),
        ("experiments=1.5", "must be a whole number, not 1.5"),
        ("name=été", "no name for a search"),
        ("minutes=0", "minutes must be more than 0"),
        ("executor.device=tpu", "executor.device must be 'auto', 'cpu' or 'cuda'"),
        ("executor.devices=0", "a list in brackets"),
        ("guards=3", "a mapping in braces"),
        ("sandbox.limits.memory_gb=abc", "sandbox.limits.memory_gb must be a number, not 'abc'"),
        ("sandbox.limits.memory_gb=-1", "more than 0"),
        ("sandbox.limits.processes=0", "4 or more"),
        ("sandbox.backend=bwrap", "Choose it: sandbox=bwrap"),
        ("proposer.name=random", "Choose it: proposer=random"),
        ("data.path=x.txt", "belongs to data=file or data=prepared"),
    ],
)
def test_what_is_wrong_is_refused_with_what_to_do(override: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        load([override], {}).brief_path  # noqa: B018
    assert says in f"{error.value} {error.value.hint}"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("judge.odds=abc", "judge.odds must be a number, not 'abc'"),
        ("judge.refresh=true", "judge.refresh must be a number"),
        ("judge.limit=0", "limit must be a whole number"),
        ("data.validation_fraction=2", "validation_fraction is 2"),
        ("data.test_tokens=0.5", "Give a whole number"),
        ("data=file", "no path is set"),
        ("data=prepared", "data.path is missing"),
        ("data.vocab=1e9", "vocab"),
        ("budget.kind=hours", "budget.kind must be 'seconds' or 'tokens'"),
        ("budget.amount=inf", "budget.amount must be"),
        ("task.editable=[nanomodel/harness.py]", "part of the frozen package"),
        ("task.editable=[nanomodel/train.py,nanomodel/data/spec.py]", "nanomodel/data/spec.py is part of"),
        ("task.editable=[]", "1 or more"),
    ],
)
def test_every_option_has_a_type_and_a_range(override: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        config = load([override], {})
        check_judge(config)
        create_task(config)
    assert says in f"{error.value} {error.value.hint}"
    assert "pydantic" not in str(error.value) and "Input should" not in str(error.value)


AWKWARD = [
    "a=b,c.txt",
    "x[1].txt",
    "100%#.txt",
    "$HOME.txt",
    "my dir/été.txt",
    "~/x.txt",
    'it\'s "so" {a}.txt',
]


@pytest.mark.parametrize("path", AWKWARD)
def test_paths_are_taken_as_they_are_written(path: str, repository: Path) -> None:
    assert load(["data=file", f"data.path={path}"], {}).data["path"] == path
    (repository / "autoresearch.yaml").write_text(json.dumps({"data": "file", "data.path": path}))
    assert load([], {}).data["path"] == path


@given(st.text(min_size=1, max_size=20).filter(lambda t: t[0] not in "'\"" and "${" not in t and t != "null"))
def test_any_path_is_spelled_so_that_it_is_read_as_it_is(text: str) -> None:
    spelled = compose._spelled(f"data.path={text}")
    assert compose._parser().parse_override(spelled).value() == text


def test_a_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert load(["runs=~/my runs"], {}).runs == Path("/home/me/my runs")


@pytest.mark.parametrize("name", ["123", "2026-10-01", "1e5", "true", "1_000"])
def test_a_name_is_a_text_whatever_it_looks_like(name: str) -> None:
    assert load([f"name={name}"], {}).name == name
    assert load([f"name='{name}'"], {}).name == name


def test_numbers_may_be_written_as_people_write_them() -> None:
    assert load(["experiments=1e2"], {}).experiments == 100
    assert load(["experiments=1_000"], {}).experiments == 1000
    assert load(["ideas=null"], {}).ideas is None


@settings(max_examples=30)  # each composes the whole configuration
@given(st.text(min_size=1, max_size=30))
def test_no_override_makes_it_fall_over(text: str) -> None:
    with contextlib.suppress(UserError):
        load([text], {})


def test_resuming_may_ask_for_more_but_not_change_what_a_score_means() -> None:
    begun = load(["name=x", "budget=smoke", "experiments=3"], {})
    assert resume(begun, ["experiments=9"]).experiments == 9
    assert resume(begun, ["experiments=9"]).budget == begun.budget
    with pytest.raises(UserError, match="budget"):
        resume(begun, ["budget.amount=1000"])


@pytest.mark.parametrize(
    "limit",
    ["budget.slowdown=5", "budget.max_seconds=300", "budget.score_seconds=300", "guards.score_seconds=9"],
)
def test_limits_that_change_no_score_may_change_while_a_search_goes_on(limit: str) -> None:
    begun = load(["name=x", "budget=smoke"], {})
    assert resume(begun, [limit]) != begun
    timed = load(["name=x", "budget=smoke", "budget.kind=seconds"], {})
    if "score_seconds" not in limit:
        with pytest.raises(UserError, match="budget"):
            resume(timed, [limit])


def test_a_price_of_ones_own_is_added() -> None:
    price = "proposer.prices={my-model: {input: 2, output: 8}}"
    assert load(["proposer=openai", price], {}).proposer["prices"] == {"my-model": {"input": 2, "output": 8}}
    kept = load(["proposer=anthropic", r"proposer.prices={a\:b: {input: 1}}"], {}).proposer["prices"]
    assert "claude-sonnet-5-5" in kept and kept["a:b"] == {"input": 1}


def test_another_proposer_may_go_on_without_the_options_of_the_first() -> None:
    begun = load(["name=x", "proposer=command", "proposer.argv=[ls]", "seed=3"], {})
    on = resume(begun, ["proposer=openai"])
    assert on.proposer["name"] == "openai" and on.seed == 3
    assert resume(begun, ["proposer=command"]).proposer["argv"] == ["ls"]


def test_overrides_take_the_place_of_others_and_of_the_options_of_another_choice() -> None:
    before = ["data=file", "data.path=a.txt", "seed=1", "claim=2"]
    assert replaced(before, ["seed=3"]) == ["data=file", "data.path=a.txt", "claim=2", "seed=3"]
    assert replaced(before, ["data=file"]) == ["data.path=a.txt", "seed=1", "claim=2", "data=file"]
    assert replaced(before, ["data=tinystories"], without=["claim"]) == ["seed=1", "data=tinystories"]
    assert replaced(["data.path=b"], ["data=file"], choices={"data": "file"}) == ["data.path=b", "data=file"]
    assert len(replaced(["proposer.prices={a: [1, 2]}"], ["proposer.prices={b: [1, 2]}"])) == 2  # they add


def test_briefs_differ_and_can_be_any_file(tmp_path: Path) -> None:
    assert len({p.read_text() for p in BRIEFS.glob("*.md")}) >= 5
    mine = tmp_path / "mine.md"
    mine.write_text("# Mine")
    assert load([f"brief={mine}"], {}).brief_path == mine


@pytest.mark.parametrize(
    ("nodes", "shown", "there"),
    [
        (["nvidia0", "nvidiactl"], None, True),
        (["nvidia3", "nvidiactl"], "GPU-ab", True),
        (["kfd"], None, True),
        (["nvidiactl", "nvidia-uvm"], None, False),
        (["nvidia0"], "", False),
        (["nvidia0"], "-1", False),
    ],
)
def test_a_gpu_is_found_by_any_number_unless_it_is_hidden(
    nodes: list[str], shown: str | None, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "DEV", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    for node in nodes:
        (tmp_path / node).touch()
    assert has_gpu() is there
    assert (load(["name=x"], {}).choices["budget"] == "gpu_5min") is there


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The top folder of a repository; commands run in a folder below it."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    return tmp_path


def test_the_users_file_lies_between_the_defaults_and_the_command_line(repository: Path) -> None:
    text = "budget: smoke\nbudget.max_seconds: 90\nexperiments: 7\nbaselines: 4\nproposer: {bogus: 1}\n"
    (repository / "autoresearch.yaml").write_text(text.replace("proposer: {bogus: 1}\n", ""))
    config = load(["experiments=9", "executor.device=cpu"], {})
    assert (config.experiments, config.baselines, config.choices["budget"]) == (9, 4, "smoke")
    assert config.budget["max_seconds"] == 90
    (repository / "autoresearch.yaml").write_text(text)
    with pytest.raises(UserError, match=r"autoresearch\.yaml.*proposer\.bogus"):
        load([], {})
    with pytest.raises(UserError, match=r"^There is no configuration key 'experimets'"):
        load(["experimets=3"], {})


def test_the_users_values_may_be_any_yaml(repository: Path) -> None:
    odd = r"it's a \back\\slash' and: more, [x] {y} \\"
    values = {
        "proposer": "openai",
        "tracking.experiment": odd,
        "proposer.prices": {"my model:v1, (x)": {"input": 2}},
        "guards": {"memory_mb": 2, "weights_mb": None},
        "name": "1e3",
    }
    (repository / "autoresearch.yaml").write_text(json.dumps(values))  # which is YAML
    config = load([], {})
    assert config.tracking.experiment == odd and config.name == "1e3"
    assert (config.guards.memory_mb, config.guards.weights_mb) == (2, None)
    assert config.proposer["prices"]["my model:v1, (x)"] == {"input": 2}


@pytest.mark.parametrize(("text", "says"), [("- a\n", "no mapping"), ("a: [\n", "cannot be read")])
def test_a_file_that_is_no_mapping_is_refused(repository: Path, text: str, says: str) -> None:
    (repository / "autoresearch.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        load([], {})


def test_options_of_a_choice_that_the_command_line_replaces_do_not_count(repository: Path) -> None:
    (repository / "autoresearch.yaml").write_text("proposer: command\nproposer.argv: [ls, '-l a']\n")
    assert load([], {}).proposer["argv"] == ["ls", "-l a"]
    assert load(["proposer=random"], {}).choices["proposer"] == "random"


def test_a_search_goes_on_as_it_was_begun_whatever_the_file_says_now(repository: Path) -> None:
    file = repository / "autoresearch.yaml"
    file.write_text("baselines: 4\n")
    begun = load(["name=x"], {})
    file.write_text("baselines: 5\n")
    assert resume(begun, []).baselines == 4
    assert load(begun.overrides, {}, own_file=False).baselines == 4
    file.write_text("seed: 5\n")
    with pytest.raises(UserError, match="another seed"):
        resume(begun, [])


def test_the_users_folder_adds_choices_and_briefs(repository: Path) -> None:
    own = repository / "configs"
    for folder in ("data", "briefs", "budget"):
        (own / folder).mkdir(parents=True)
    (own / "data" / "mine.yaml").write_text((CONFIGS / "data" / "sotu.yaml").read_text())
    (own / "briefs" / "mine.md").write_text("# Mine")
    (own / "budget" / "smoke.yaml").write_text(
        (CONFIGS / "budget" / "smoke.yaml").read_text().replace("max_seconds:", "max_seconds: 77 #")
    )
    config = load(["data=mine", "brief=mine", "budget=smoke"], {})
    assert config.choices["data"] == "mine" and config.budget["max_seconds"] == 77
    assert config.brief_path == own / "briefs" / "mine.md"
    assert load(["data=sotu"], {}).brief_path == BRIEFS / "default.md"
    with pytest.raises(UserError, match="no data 'mien'") as error:
        load(["data=mien"], {})
    assert "mine" in (error.value.hint or "")
    (own / "config.yaml").write_text("their: own\n")
    assert load(["budget=smoke"], {}).budget["max_seconds"] != 77, "another program's folder replaces nothing"
    assert load(["data=mine"], {}).choices["data"] == "mine"


def test_shipped_ideas_are_found_by_name_from_anywhere(repository: Path) -> None:
    assert len(load(["ideas=shelf"], {}).idea_paths) >= 3


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("Größer".encode("latin-1"), "not UTF-8"),
        ("Größer".encode("utf-16"), "not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8"),
        (b"a\0b", "holds NUL"),
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
    ],
)
def test_a_brief_that_is_no_text_is_refused_with_what_to_do(raw: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "brief.md"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=says) as error:
        load([f"brief={path}"], {}).read_brief()
    assert str(path) in str(error.value) and error.value.hint


def test_a_brief_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "brief.md").write_bytes(b"\xef\xbb\xbf# Mine")
    assert load([f"brief={tmp_path / 'brief.md'}"], {}).read_brief() == "# Mine"
