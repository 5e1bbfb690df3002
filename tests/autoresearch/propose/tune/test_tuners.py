"""Proposers that tune knobs: ordinary edits, no repeats, rebuilt from the history, and a gain on a bowl."""

from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.config import CONFIGS
from autoresearch.edit.apply import apply
from autoresearch.edit.knobs import Choice, Range, read_knobs, read_values
from autoresearch.edit.rules import check as check_rules
from autoresearch.errors import Refused, UserError
from autoresearch.propose import create_proposer
from autoresearch.propose.base import ProposerError
from autoresearch.propose.tune.knobs import proposal, scope, tunables
from autoresearch.propose.tune.local_sampler import feasible, fit
from autoresearch.propose.tune.optuna import MAX_SEEN, observations
from autoresearch.propose.tune.study import STUDY, importances
from autoresearch.types import Category, Direction, Metric
from tests.support.histories import SOURCE, baseline, context, experiment
from tests.support.services import make_services

TUNERS = [
    ("random", {}),
    *(("optuna", {"sampler": sampler}) for sampler in ("local", "tpe")),
    pytest.param("optuna", {"sampler": "gp"}, marks=pytest.mark.slow),  # it imports torch
]
every = pytest.mark.parametrize(("name", "options"), TUNERS, ids=lambda value: str(value))


def check(found, source=SOURCE):
    sources = {"train.py": source}
    check_rules(sources, apply(sources, found.edits), ["train.py"])


def judged(number, found, *, kept=False, score=1.76):
    kind, scores = ("keep" if kept else "discard"), (score,)
    made = experiment(
        number, kind if score else "crash", effect=1.75 - (score or 2), scores=scores if score else ()
    )
    return replace(made, proposal=found)


def new_source(found, source=SOURCE):
    return apply({"train.py": source}, found.edits)["train.py"]


@every
def test_a_proposal_is_an_ordinary_edit_that_says_what_it_does(name, options):
    past, source, points = [baseline()], SOURCE, []
    proposer = create_proposer(name, column=0, **options)
    for number in range(1, 12):
        found = proposer.ask(context(past, source=source), lambda p, source=source: check(p, source))[0]
        new = new_source(found, source)
        values = read_values(new, 0)
        assert found.params == {k: values[k] for k in ("DEPTH", "LR", "WARMUP", "ACT")}, (
            "what it says is what it is"
        )
        assert found.category is Category.KNOBS and found.proposer == name
        for knob, before in read_values(source, 0).items():
            assert (f"{knob} " in found.hypothesis) == (values[knob] != before)
        assert read_values(new, 1)["LR"] == 0.01, "the other device's column stays"
        points.append(tuple(found.params.values()))
        kept = number % 5 == 0
        past.append(judged(number, found, kept=kept, score=None if number == 3 else 1.75 + 0.01 * number))
        source = new if kept else source
    assert len(set(points)) == len(points), "nothing is tried twice"


@every
def test_a_restart_continues_and_the_seed_decides(name, options):
    past = [baseline()]
    first = create_proposer(name, column=0, **options)
    for number in range(1, 4):
        past.append(judged(number, first.ask(context(past), check)[0]))
    again = create_proposer(name, column=0, **options).ask(context(past), check)[0]
    assert again == create_proposer(name, column=0, **options).ask(context(past), check)[0]
    other = create_proposer(name, column=0, **options).ask(context(past, seed=1), check)[0]
    assert other.params != again.params
    if name == "optuna":
        assert again == first.ask(context(past), check)[0]


@pytest.mark.parametrize("sampler", ["local", pytest.param("gp", marks=pytest.mark.slow)])
def test_what_is_under_way_is_known_to_whoever_continues(sampler):
    """The next point is another one, and not a near twin that would learn nothing new."""
    known = context([baseline()])
    twin = create_proposer("optuna", column=0, sampler=sampler).ask(known, check)[0]
    waits = replace(known, under_way=(replace(judged(1, twin), verdict=None),))
    found = create_proposer("optuna", column=0, sampler=sampler).ask(waits, check)[0]
    assert found.params != twin.params
    again = create_proposer("optuna", column=0, sampler=sampler).ask(waits, check)[0]
    assert found == again


@pytest.mark.slow
@every
def test_points_that_check_refuses_are_passed_over_and_a_used_up_space_is_said(name, options):
    def picky(found):
        if found.params["ACT"] != "gelu":
            raise Refused("only gelu")

    proposer = create_proposer(name, column=0, **options)
    assert proposer.ask(context(), picky)[0].params["ACT"] == "gelu"

    def never(found):
        raise Refused("no")

    with pytest.raises(ProposerError, match="in a row") as error:
        proposer.ask(context(), never)[0]
    assert not error.value.retry


@every
def test_a_script_without_knobs(name, options):
    bare = replace(context(), baseline_sources={"train.py": "x = 1\n"}, sources={"train.py": "x = 1\n"})
    with pytest.raises(ProposerError, match="no knobs"):
        create_proposer(name, column=0, **options).ask(bare, check)[0]


def test_the_gpu_column():
    found = create_proposer("random", column=1).ask(context(), check)[0]
    assert read_values(new_source(found), 0)["LR"] == 0.02 and "at(3, " in new_source(found)


def test_settings_are_checked():
    with pytest.raises(UserError, match=r"proposer\.sampler"):
        create_proposer("optuna", column=0, sampler="cmaes")
    with pytest.raises(UserError, match="'optunna'") as error:
        create_proposer("optunna", column=0)
    assert "'optuna'" in error.value.hint


def test_spaces_stay_while_the_incumbent_moves_and_lost_knobs_are_left_out():
    moved = (
        SOURCE.replace("0.02", "0.08")
        .replace("WARMUP = 0.0  ", "WARMUP = f()")
        .replace('"relu2"  ', '"silu"   ')
    )
    knobs = tunables(context(source=moved), 0)
    assert set(knobs) == {"DEPTH", "LR"}, "ACT is none of its options any more"
    assert knobs["LR"].value == 0.08 and knobs["LR"].space == read_knobs(SOURCE, 0)[1].space
    found = proposal(context(source=moved), knobs, {"LR": 0.03}, 0, "me")
    assert found.hypothesis == "LR 0.08 -> 0.03" and found.params == {"DEPTH": 3, "LR": 0.03}


def test_knobs_of_several_files():
    sources = {
        "a.py": "LR = 0.1  # x2\n",
        "b.py": "LR = 0.5  # x2\nWD = 0.1  # 0..1\n",
        "c.yaml": "X: 1.0  # x2\n",
    }
    both = replace(context(), sources=sources, baseline_sources=sources)
    knobs = tunables(both, 0)
    files = {"LR": "a.py", "WD": "b.py", "b.py:LR": "b.py", "X": "c.yaml"}
    assert {name: knob.path for name, knob in knobs.items()} == files
    found = proposal(both, knobs, {"LR": 0.2, "WD": 0.3, "b.py:LR": 0.4, "X": 1.5}, 0, "me")
    new = apply(sources, found.edits)
    assert new["b.py"] == "LR = 0.4  # x2\nWD = 0.3  # 0..1\n" and new["a.py"] == "LR = 0.2  # x2\n"
    assert new["c.yaml"] == "X: 1.5  # x2\n"


def kept_code(number, old, new):
    diff = "--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n"
    diff += "".join(f"-{line}\n" for line in old) + "".join(f"+{line}\n" for line in new)
    return experiment(number, "keep", effect=0.05, scores=(1.70,), diff=diff)


def test_an_edit_adds_renames_and_removes_knobs_and_what_was_learned_carries_over():
    before = {"DEPTH": 4, "LR": 0.03, "WARMUP": 0.1, "ACT": "gelu"}
    source = SOURCE.replace("LR = at", "MATRIX_LR = at").replace("WARMUP = 0.0          # 0..0.2\n", "")
    source = source.replace("ACT =", "GATE = 2.0            # x2\nACT =")
    past = [
        baseline(1.75),
        experiment(1, "discard", effect=-0.01, scores=(1.76,), params=before),
        kept_code(
            2,
            ["LR = at(0.02, 0.01)   # x4", "WARMUP = 0.0          # 0..0.2"],
            ["MATRIX_LR = at(0.02, 0.01)   # x4", "GATE = 1.0            # x2; of the residual"],
        ),
        experiment(3, "keep", effect=0.001, scores=(1.70,), params={"GATE": 2.0}),
    ]
    now = context(past, source=source, score=1.70)
    knobs = tunables(now, 0)
    assert set(knobs) == {"DEPTH", "MATRIX_LR", "ACT", "GATE"}
    assert knobs["MATRIX_LR"].space == read_knobs(SOURCE, 0)[1].space
    assert knobs["GATE"].space == Range(0.5, 2.0, log=True), "as it was declared, though it has moved since"
    seen = {one.experiment: one for one in observations(now, knobs, 0)}
    assert seen[1].point == {"DEPTH": 4, "MATRIX_LR": 0.03, "ACT": "gelu", "GATE": 2.0}
    assert seen[1].score == pytest.approx(1.71), "relative to the incumbent of its time"
    assert seen[0].point["MATRIX_LR"] == 0.02


def test_a_changed_declaration_counts():
    source = SOURCE.replace("# 2..6", "# 2..12")
    past = [baseline(), kept_code(1, ["DEPTH = at(3, 8)      # 2..6"], ["DEPTH = at(3, 8)      # 2..12"])]
    assert tunables(context(past, source=source), 0)["DEPTH"].space == Range(2, 12, integer=True)
    other = SOURCE.replace("# 2..6", "# 2..6; blocks")
    assert tunables(context(source=other), 0)["DEPTH"].space == Range(2, 6, integer=True)


def test_a_failure_keeps_the_next_points_away():
    at, failed = np.array([[0.5], [0.9], [0.1]]), np.array([False, True, False])
    near, far, good = feasible(np.array([[0.88], [0.3], [0.5]]), at, failed)
    assert near < 0.6 < 0.98 < far and good > 0.98


def test_what_was_tried_is_recorded_once_in_a_study_on_disk(tmp_path):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    services = replace(make_services(tmp_path), folder=tmp_path / "agent")
    proposer = create_proposer("optuna", column=0, sampler="tpe", services=services)
    past = [baseline()]
    for number in range(1, 6):
        found = proposer.ask(context(past), check)[0]
        past.append(judged(number, found, score=None if number == 2 else 1.75 + number / 100))
    proposer.ask(context(past), check)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / STUDY)))
    trials = optuna.load_study(study_name="night1", storage=storage).trials
    assert [t.user_attrs["experiment"] for t in trials] == [0, 1, 2, 3, 4, 5]
    assert trials[1].params["LR"] == past[1].proposal.params["LR"] and trials[1].value == pytest.approx(1.76)
    assert trials[2].state is optuna.trial.TrialState.FAIL and trials[2].constraints == {"failed": 1.0}


def test_the_knob_that_decides_is_found_to_matter():
    proposer, past = create_proposer("random", column=0), [baseline()]
    for number in range(1, 41):
        found = proposer.ask(context(past), check)[0]
        score = 1.7 + abs(np.log(found.params["LR"] / 0.03)) / 10
        past.append(judged(number, found, score=float(score)))
    knobs = tunables(context(past), 0)
    shares = importances(knobs, observations(context(past), knobs, 0))
    assert next(iter(shares)) == "LR" and sum(shares.values()) == pytest.approx(1.0)
    assert importances(knobs, observations(context(past[:5]), knobs, 0)) == {}


@pytest.mark.slow
def test_unmoved_knobs_keep_every_digit():
    source = SOURCE.replace("0.02", "0.0213457")
    odd = replace(context(source=source), baseline_sources={"train.py": source})
    proposer = create_proposer("optuna", column=0, sampler="local")
    for _ in range(6):
        found = proposer.ask(odd, lambda p: check(p, source))[0]
        assert ("LR" in found.hypothesis) == (found.params["LR"] != 0.0213457)


def test_observations_cut_bad_scores_and_take_off_gains_of_code():
    point = {"DEPTH": 4, "LR": 0.03, "WARMUP": 0.0, "ACT": "gelu"}
    past = [
        baseline(1.75),
        replace(experiment(1, "discard", effect=-0.01, scores=(1.76,), params=point)),
        experiment(2, "crash", params=point),
        experiment(3, "keep", effect=0.05, scores=(1.70,)),
        experiment(4, "discard", effect=-9.0, scores=(99.0,), params=point),
    ]
    now = context(past, score=1.70, noise=0.005)
    found = observations(now, tunables(now, 0), 0)
    start = {"DEPTH": 3, "LR": 0.02, "WARMUP": 0.0, "ACT": "relu2"}
    worst = pytest.approx(1.70 + 12 * 0.005)
    assert [one.failed for one in found] == [False, False, True, False, False]
    assert [dict(one.point) for one in found] == [start, point, point, point, start]
    assert [one.score for one in found] == [pytest.approx(1.70), pytest.approx(1.71), worst, worst, 1.70]


def test_work_does_not_grow_with_the_history(monkeypatch):
    import autoresearch.propose.tune.local_sampler as local

    sizes = []
    monkeypatch.setattr(local, "fit", lambda x, y: sizes.append(len(x)) or fit(x[:5], y[:5]))
    point = create_proposer("random", column=0).ask(context(), check)[0]
    past = [baseline(), *(judged(number, point) for number in range(1, 1001))]
    create_proposer("optuna", column=0, sampler="local").ask(context(past), check)[0]
    assert set(sizes) == {MAX_SEEN}


@pytest.mark.parametrize("direction", list(Direction))
def test_a_score_that_is_better_attracts_whichever_way_the_metric_goes(direction):
    metric = Metric("score", "points", direction)
    start = {"DEPTH": 3, "LR": 0.02, "WARMUP": 0.0, "ACT": "relu2"}
    tried = [
        judged(n, replace(made, params=start | {"LR": lr}))
        for n, lr in enumerate((0.03, 0.012), 1)
        for made in [experiment(n, "discard").proposal]
    ]
    better, worse = metric.change(0.02), metric.change(-0.02)
    past = [baseline(), *(
        replace(e, trials=experiment(e.number, "discard", scores=(1.75 + change,)).trials)
        for e, change in zip(tried, (better, worse), strict=True)
    )]  # fmt: skip
    known = replace(context(past), metric=metric)
    scores = [one.score for one in observations(known, tunables(known, 0), 0)]
    assert scores[1] < scores[3] < scores[2], "as losses: the baseline, the better, the worse, the incumbent"
    makers = [create_proposer("optuna", column=0, sampler="local") for _ in range(8)]
    moved = [p.ask(replace(known, seed=n), check)[0].params["LR"] for n, p in enumerate(makers)]
    assert sum(lr > 0.02 for lr in moved) > sum(lr < 0.02 for lr in moved)


def test_without_noise():
    past = [baseline()]
    proposer = create_proposer("optuna", column=0, sampler="local")
    for number in range(1, 6):
        found = proposer.ask(context(past, noise=0.0), check)[0]
        past.append(judged(number, found, score=1.74 + 0.01 * number))


def true_score(values):
    position = {k.name: k.space for k in read_knobs(SOURCE, 0)}
    lr, depth = position["LR"].unit(values["LR"]), position["DEPTH"].unit(values["DEPTH"])
    assert isinstance(position["ACT"], Choice)
    return 1.6 + 0.8 * (lr - 0.75) ** 2 + 0.2 * (depth - 0.5) ** 2 + 0.1 * values["WARMUP"]


@pytest.mark.slow
def test_the_local_sampler_finds_a_gain_within_a_dozen():
    gains = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        source, score, past = (
            SOURCE,
            true_score(read_values(SOURCE, 0)),
            [baseline(true_score(read_values(SOURCE, 0)))],
        )
        start = score
        proposer = create_proposer("optuna", column=0, sampler="local")
        for number in range(1, 13):
            now = context(past, source=source, score=score, seed=seed)
            found = proposer.ask(now, lambda p, source=source: check(p, source))[0]
            candidate = new_source(found, source)
            true = true_score(read_values(candidate, 0))
            kept = true < score - 0.005
            past.append(judged(number, found, kept=kept, score=true + random.normal(0, 0.005)))
            source, score = (candidate, true) if kept else (source, score)
        gains.append((start - score) / (start - 1.6))
    assert np.mean(gains) > 0.6


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 6))
def test_the_process_is_sure_where_it_has_seen_and_unsure_elsewhere(seed, n, d):
    random = np.random.default_rng(seed)
    x = random.uniform(0, 0.5, (n, d))
    y = 20 * np.sin(3 * x[:, 0]) + random.normal(0, 1, n)
    process = fit(x, y)
    mean, deviation = process.predict(np.vstack([x, np.full((1, d), 9.0)]))
    assert np.isfinite(mean).all() and (deviation[:-1] <= 1.0 + 1e-6).all(), (
        "at worst one observation's noise"
    )
    assert deviation[-1] > 2 and abs(mean[-1]) < 1e-3
    assert np.sqrt(np.mean((mean[:-1] - y) ** 2)) < 4


def test_the_gradient_of_the_posterior_is_right():
    from scipy.optimize import check_grad

    from autoresearch.propose.tune import local_sampler as gp

    random = np.random.default_rng(0)
    x, y = random.uniform(0, 1, (12, 3)), random.normal(0, 5, 12)
    prior = np.log(np.array([0.6, 0.6, 0.6, 12.0]))
    squares = gp._squares(x, x)
    at = prior + random.normal(0, 0.5, 4)
    loss, gradient = (
        (lambda h: gp._loss(h, squares, y, prior)[0]),
        (lambda h: gp._loss(h, squares, y, prior)[1]),
    )
    assert check_grad(loss, gradient, at) < 1e-4 * np.linalg.norm(gradient(at))


FRONT = "---\ntitle: x\nknobs: [LR, WARM*]\n---\n# Brief\nknobs: DEPTH\n"


@every
def test_a_brief_says_which_knobs_may_be_tuned(name, options):
    proposer, past = create_proposer(name, column=0, **options), [baseline()]
    for number in range(1, 5):
        told = replace(context(past), brief=FRONT)
        found = proposer.ask(told, check)[0]
        assert found.params.keys() == {"LR", "WARMUP"} and "DEPTH" not in found.hypothesis
        past.append(judged(number, found))
    free = proposer.ask(replace(context(past), brief="# Brief\nknobs: LR\n"), check)[0]
    assert "DEPTH" in free.params
    with pytest.raises(ProposerError, match="allows no knob of the script, only NOTHING"):
        proposer.ask(replace(context(past), brief="---\nscope: NOTHING\n---\n"), check)


@pytest.mark.parametrize("brief", sorted((CONFIGS / "briefs").glob("*.md")), ids=lambda path: path.stem)
def test_the_knobs_that_a_shipped_brief_names_are_in_the_shipped_script(brief):
    source = (CONFIGS.parent / "nanomodel/train.py").read_text(encoding="utf-8")
    names = [knob.name for column in (0, 1) for knob in read_knobs(source, column)]
    patterns = scope(brief.read_text(encoding="utf-8"))
    assert bool(patterns) == (brief.stem in ("optimizer", "architecture"))
    assert all(any(fnmatchcase(name, pattern) for name in names) for pattern in patterns)
