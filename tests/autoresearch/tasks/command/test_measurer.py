"""What a trial of a command measures, hands over, refuses and hides."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoresearch.tasks.command import stages
from autoresearch.types import Outcome, Progress, Split
from tests.support import command_task as support
from tests.support.command_task import Arena

pytestmark = pytest.mark.slow

Make = Callable[..., Arena]
numbers = itertools.count()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture
def printed(folder: Path) -> Make:
    def make(script: str = support.PRINTED, *settings: str) -> Arena:
        root = support.write_printed(folder / "repository", script)
        return Arena(root, folder / str(next(numbers)), *support.PRINTED_SETTINGS, *settings)

    return make


@pytest.fixture
def artifact(folder: Path) -> Make:
    def make(*settings: str, **files: str) -> Arena:
        root = support.write_artifact(folder / "repository", **files)
        return Arena(root, folder / str(next(numbers)), *support.ARTIFACT_SETTINGS, *settings)

    return make


def test_the_candidate_s_words_are_believed_where_there_is_no_scorer(printed: Make) -> None:
    arena = printed()
    first, other = (
        arena.measure(seed=1),
        arena.measure({"train.py": support.PRINTED.replace("0.5  #", "0.7  #")}, 2),
    )
    assert first.score == pytest.approx(0.2, abs=0.01) and other.score == pytest.approx(0, abs=0.01)
    assert first.metrics["accuracy"] == 0.75 and first.metrics["train_seconds"] > 0
    assert "METRIC error" in first.log and [name for name, *_ in first.phases] == ["train"]


def test_a_scorer_reads_what_was_left_and_writes_the_losses_of_items(artifact: Make) -> None:
    arena = artifact()
    done = arena.measure(splits=[Split.VALIDATION, Split.TEST])
    assert done.score == pytest.approx(0.2, abs=0.01), done
    assert done.metrics["test_error"] == pytest.approx(done.score + 0.01)
    table = np.load(arena.folder / "scratch1" / "validation.npy")
    assert table.shape == (8, 3) and table[:, 0].sum() / table[:, 1].sum() == pytest.approx(done.score)


def test_what_was_left_is_kept_and_scored_later_without_training(artifact: Make) -> None:
    arena = artifact()
    kept = arena.folder / "kept.weights"
    first = arena.measure(submission=str(kept))
    again = arena.measure({"train.py": "raise SystemExit(1)"}, splits=[Split.TEST], submission=str(kept))
    assert first.score and again.score == pytest.approx(first.score + 0.01)
    assert "train" not in {name for name, *_ in again.phases}


def test_time_in_which_others_had_the_cores_is_no_time_of_scoring(
    artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with limits on time: what the kernel says it waited does not count, and load is no verdict."""
    run = stages.run

    def counted(*args: Any, **options: Any) -> Any:
        ended = run(*args, **options)
        return ended if options["trained"] else replace(ended, seconds=2.5)  # of more by the wall clock

    monkeypatch.setattr(stages, "run", counted)
    arena = artifact()
    both = [Split.VALIDATION, Split.TEST]
    assert arena.measure(splits=both).metrics["score_seconds"] == 5.0
    monkeypatch.setattr(arena.measurer._load, "blame", lambda since: "other programs used all cores")
    busy = arena.measure(splits=both)
    assert busy.outcome is Outcome.OK and "score_seconds" not in busy.metrics, "no guard can judge it"


def test_the_seed_the_threads_and_variables_are_told_in_both_ways(printed: Make) -> None:
    script = (
        "import os, sys\n"
        "assert sys.argv[1:] == [os.environ['AUTORESEARCH_SEED'], os.environ['AUTORESEARCH_THREADS']]\n"
        "assert os.environ['MODE'] == 'fast' and 'MISSING' not in os.environ\n"
        "print('METRIC error=' + sys.argv[1])\n"
    )
    arena = printed(script, "task.train='python train.py {seed} {threads}'", "task.env=['MODE=fast',MISSING]")
    assert arena.measure(seed=41).score == 41


def test_a_budget_of_seconds_is_told_and_ends_the_program(printed: Make) -> None:
    script = "import os, time\ntime.sleep(float(os.environ['AUTORESEARCH_SECONDS']) + EXTRA)\n"
    script += "print('METRIC error=1')\n"
    arena = printed(script.replace("EXTRA", "0"), "budget.kind=seconds", "budget.amount=0.5")
    assert arena.task.budget.seconds == 0.5 and arena.measure().score == 1
    late = arena.measure({"train.py": script.replace("EXTRA", "60")})
    assert late.outcome is Outcome.CRASH and late.reason.startswith("timeout: not done after 1.0")


def test_a_candidate_may_take_little_longer_than_the_start(printed: Make) -> None:
    arena = printed("import time\ntime.sleep(60)\n")
    late = arena.measure(baseline={"train_seconds": 0.1})
    assert late.reason.startswith("timeout: not done after 1.15 s")


def test_progress_is_told_and_may_end_a_trial(printed: Make) -> None:
    script = "import time\nprint('PROGRESS 0.25 3.5', flush=True)\ntime.sleep(60)\n"
    arena = printed(script)
    tree, scratch = arena.export("t"), arena.folder / "s"
    scratch.mkdir()
    from autoresearch.execute.base import TrialSpec

    def hopeless(sign: Progress) -> bool:
        return sign.loss is not None

    done = arena.measurer.measure(tree, TrialSpec("x", 1, "", 0), scratch, lambda sign: None, hopeless)
    assert (done.outcome, done.curve) == (Outcome.PRUNE, ((0.25, 3.5),)) and done.provenance.fraction == 0.25


def test_checks_must_pass_and_are_run_once_for_the_same_files(printed: Make, folder: Path) -> None:
    arena = printed(
        support.PRINTED, "task.checks=['grep -q LEVEL train.py', 'sh -c \"! grep -q cheat train.py\"']"
    )
    assert arena.measure().outcome is Outcome.OK and arena.tryout().outcome is Outcome.OK
    assert len(arena.measurer.stages.checked) == 1
    bad = {"train.py": support.PRINTED + "# cheat\n"}
    for failed in (arena.measure(bad), arena.tryout(bad)):
        assert failed.outcome is Outcome.INVALID and "the check `sh -c" in failed.reason


def test_guards_hold_in_each_trial(printed: Make) -> None:
    arena = printed(support.PRINTED, "task.guards=['accuracy >= baseline - 0.002']")
    baseline = [arena.measure().metrics]
    worse = arena.measure({"train.py": support.PRINTED.replace("0.75", "0.7")}).metrics
    assert not arena.task.guard(baseline[0], baseline)
    assert "accuracy is 0.7, and accuracy >= baseline - 0.002 is wanted" in arena.task.guard(worse, baseline)


def test_what_is_held_out_is_not_in_the_candidate_s_copy(artifact: Make, folder: Path) -> None:
    look = support.TRAIN + "import glob\nprint('SEES', sorted(glob.glob('**', recursive=True)))\n"
    support.write(folder / "repository", {"hidden/y.json": "[1]", "z.csv": "1"})
    (folder / "repository" / "local.csv").write_text("2")
    (folder / "repository" / ".gitignore").write_text("runs/\nlocal.csv\n")
    score = "import sys\nassert open('hidden/y.json').read() == '[1]' and open('local.csv').read() == '2'\n"
    arena = artifact("task.held_out=[hidden,'*.csv']", train_py=look, score_py=score + support.SCORE)
    done = arena.measure()
    assert done.outcome is Outcome.OK, (done, arena.said)
    assert "SEES ['level.py', 'prepare.py', 'score.py', 'train.py']" in done.log


def test_inputs_that_git_does_not_hold_are_shown_read_only(printed: Make, folder: Path) -> None:
    (folder / "repository" / "data").mkdir(parents=True)
    (folder / "repository" / "data" / "x.txt").write_text("0.125")
    support.write(folder / "repository", {".gitignore": "data/\nruns/\n"})
    script = "from pathlib import Path\nprint('METRIC error=' + Path('data/x.txt').read_text())\n"
    arena = printed(script)
    lacking = arena.measure()
    assert "git does not hold data/x.txt: commit it, or name it in task.inputs" in lacking.reason
    arena = printed(script + "\n", "task.inputs=[data]")
    assert arena.measure().score == 0.125
    changed = arena.measure({"train.py": script + "Path('data/x.txt').write_text('0')\n"})
    assert changed.outcome is Outcome.CRASH
    assert (folder / "repository" / "data" / "x.txt").read_text() == "0.125"


def test_much_data_outside_git_is_shown_and_not_copied(printed: Make, folder: Path) -> None:
    root = support.write(folder / "repository", {".gitignore": "data/\nruns/\n"})
    (root / "data").mkdir()
    with (root / "data" / "large.bin").open("wb") as file:
        file.truncate(2 << 30)
    script = "import os\nprint(f'METRIC error={os.path.getsize(\"data/large.bin\") >> 30}')\n"
    done = printed(script, "task.inputs=[data]", "sandbox.limits.file_gb=0.01").measure()
    assert done.score == 2, done


def test_what_is_committed_is_measured_and_the_checkout_stays_as_it_is(printed: Make, folder: Path) -> None:
    root = support.write_printed(folder / "repository")
    changes = {"train.py": "print('METRIC error=9')\n", "level.py": "LEVEL = 9\n", ".gitignore": "runs/\n"}
    (root / "staged.py").write_text("1\n")
    support.git(root, "add", "staged.py")
    support.git(root, "rm", "-q", "--cached", ".gitignore")
    for name, text in changes.items():
        (root / name).write_text(text)
    before = support.git(root, "status", "--porcelain"), support.git(root, "diff")
    os.chdir(root)
    arena = Arena(root, folder / "arena", *support.PRINTED_SETTINGS)
    assert arena.measure().score == pytest.approx(0.2, abs=0.01), "what git holds, not what lies there"
    assert (support.git(root, "status", "--porcelain"), support.git(root, "diff")) == before


def test_a_scorer_that_looks_for_the_candidate_s_folder_by_a_link_is_told_so(artifact: Make) -> None:
    """A link that is committed leads into the starting commit's tree, where no candidate has written."""
    score = support.SCORE.replace('pathlib.Path(os.environ["AUTORESEARCH_OUT"])', 'pathlib.Path("latest")')
    arena = artifact(score_py=score)
    (arena.trusted / "latest").symlink_to("../scratch1/train/out")
    done = arena.measure()
    assert (done.outcome, done.score) == (Outcome.CRASH, None)
    assert "the score command fails on what it left" in done.reason
    assert any("latest/predictions.json" in line for line in arena.said), arena.said


def test_the_repository_s_own_environment_runs_its_commands(printed: Make, folder: Path) -> None:
    import venv

    venv.create(folder / "repository" / ".venv", symlinks=True)
    (site,) = (folder / "repository" / ".venv").glob("lib/python*/site-packages")
    (site / "mine.py").write_text("ERROR = 0.5\n")
    (folder / "repository" / ".gitignore").write_text(".venv/\nruns/\n")
    script = "import mine, sys\nprint(sys.prefix)\nprint(f'METRIC error={mine.ERROR}')\nimport numpy\n"
    arena = printed(script, "task.python=.venv")
    done = arena.measure()
    assert "No module named 'numpy'" in done.reason and str(folder / "repository" / ".venv") in done.log
    assert arena.measure({"train.py": script.replace("import numpy", "")}).score == 0.5


def test_only_the_named_packages_are_shown_to_a_candidate(artifact: Make) -> None:
    arena = artifact("task.packages=[]", train_py="import numpy\n")
    done = arena.measure()
    assert "No module named 'numpy'" in done.reason, "and the scorer, which uses it, still can"
    assert arena.measure({"train.py": support.TRAIN}).outcome is Outcome.OK


def test_a_deterministic_program_runs_twice_at_most(printed: Make, folder: Path) -> None:
    script = "import os\nprint('METRIC error=' + os.environ['AUTORESEARCH_SEED'])\n"
    arena = printed(script, "task.deterministic=true")
    done = [arena.measure(seed=seed) for seed in (5, 6, 7)]
    assert [trial.score for trial in done] == [0, 0, 0] and done[2].phases == done[0].phases
    random = "import random\nprint(f'METRIC error={random.random()}')\n"
    scores = {arena.measure({"train.py": random}, seed).score for seed in (5, 6, 7)}
    assert len(scores) == 3, "what is not deterministic is measured every time, whatever was said"


@pytest.mark.parametrize(
    ("script", "outcome", "why"),
    [
        ("print('nothing')", Outcome.CRASH, "no error was said"),
        (
            "print('METRIC error=1\\nMETRIC error=2')",
            Outcome.CRASH,
            "error is said more than once: 1, then 2",
        ),
        ("print('METRIC error=nan')", Outcome.CRASH, "error is nan, which is no score"),
        ("import os; os.kill(os.getpid(), 9)", Outcome.CRASH, "SIGKILL"),
        ("raise ValueError('no')", Outcome.CRASH, "ValueError: no"),
    ],
)
def test_a_program_that_says_no_score_has_none(
    printed: Make, script: str, outcome: Outcome, why: str
) -> None:
    done = printed(script).measure()
    assert (done.outcome, done.score) == (outcome, None) and why in done.reason


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("", "no error was said"),
        ("print('METRIC error=0.1\\nMETRIC error=0.2')", "more than once"),
        ("print('METRIC error=0.1'); np.save(os.environ['AUTORESEARCH_ITEMS'], [0.5])", "have the mean 0.5"),
        (
            "print('METRIC error=0.1'); np.save(os.environ['AUTORESEARCH_ITEMS'], [float('nan')])",
            "must be finite",
        ),
        ("print('METRIC error=0.1')", "it wrote no losses of items"),
        ("raise ValueError('the answer is 0.7')", "the score command fails on what it left"),
    ],
)
def test_a_scorer_that_says_no_score_is_told_about(artifact: Make, change: str, why: str) -> None:
    done = artifact(score_py=f"import os\nimport numpy as np\n{change}\n").measure()
    assert done.score is None and why in done.reason and "0.7" not in done.reason + done.log
