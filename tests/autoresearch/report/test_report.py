import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import autoresearch
from autoresearch.judge import create_judge
from autoresearch.judge.finished.claim import Claim
from autoresearch.report import markdown as words
from autoresearch.report.markdown import code, escape, fence, headline, table
from autoresearch.report.page import to_html, to_markdown, write_report
from autoresearch.report.summary import summarize
from autoresearch.report.totals import failures
from autoresearch.store.records.claims import CLAIMS, ClaimRecord
from autoresearch.store.records.notes import PAID_AFTER
from autoresearch.text import one_line
from autoresearch.types import (
    MODEL_DOLLARS,
    Cost,
    Direction,
    Experiment,
    Metric,
    Trial,
    VerdictKind,
    in_order,
)
from tests.support.browser import Browser
from tests.support.searches import ACCURACY_INFO, EVIL, INFO, Recorded, baseline, by_accuracy, night, tried

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'
DIFF = "diff --git a/t.py b/t.py\n--- a/t.py\n+++ b/t.py\n@@ -1 +1 @@\n-LR = 1\n+LR = 5\n"


class Page(HTMLParser):
    """What a browser would see: tags, attributes, text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name == "href"}

    def handle_data(self, data: str) -> None:
        self.text += data


HARMLESS = Page(
    to_html(
        "\n\n".join(["# a", "> b **c** `d`", "```\ne\n```", "- f", table(["g"], [["h"]])]),
        "t",
        {"p.png": SVG},
    )
)


def markdown(experiments: list[Experiment], diff: str = DIFF, **changes: object) -> str:
    return to_markdown(summarize(Recorded(experiments, replace(INFO, **changes))), diff, "progress.png")


def test_the_page_says_how_much_how_sure_and_at_what_cost() -> None:
    text = markdown(night())
    assert text.startswith("# autoresearch/night1: 5.59% lower bits per byte\n")
    assert "from **1.7000** to **1.6050**" in text and "95% interval" in text
    assert "Kept: 2 of 8 changes" in text
    assert "8 (2 kept, 2 discarded, 1 stopped early, 2 crashed, 1 invalid)" in text
    assert "8 calls: 8,000 tokens in, 800 out, $0.08" in text
    assert "git merge autoresearch/night1" in text
    assert "autoresearch run name=NAME budget=smoke" in text
    assert "+LR = 5" in text
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == 2 + 8


def test_crashes_are_grouped_by_cause() -> None:
    found = failures(night())
    assert [(f.kind, f.count, f.experiments) for f in found] == [
        ("crash", 2, [3, 8]),
        ("invalid", 1, [6]),
    ]
    assert "CUDA out of memory" in markdown(night())


@pytest.mark.parametrize(
    ("experiments", "words"),
    [
        ([], "nothing has been scored yet"),
        ([baseline()], "nothing has been scored yet"),
        ([baseline(), tried(1, VerdictKind.CRASH)], "nothing has been scored yet"),
        ([baseline(1.7)], "only the starting point has been measured"),
        ([baseline(1.7, 1.71), tried(1, VerdictKind.DISCARD, ("screen", 1.6))], "nothing kept"),
        ([baseline(1.7), tried(1, VerdictKind.KEEP, ("confirm", 1.8))], "no gain"),
    ],
)
def test_no_success_is_claimed_where_there_is_none(experiments: list[Experiment], words: str) -> None:
    assert headline(summarize(Recorded(experiments))) == words
    text = markdown(experiments, "")
    assert words in text and "lower bits" not in text
    assert ("git merge" in text) == (words == "no gain")


def test_doubt_is_said() -> None:
    noisy = [baseline(1.5, 1.9), tried(1, VerdictKind.KEEP, ("confirm", 1.6), ("confirm", 1.7))]
    assert "may be noise" in markdown(noisy)
    assert "may be noise" not in markdown(night())
    assert "has not ended" in markdown(night(), finished=None) and "has not ended" not in markdown(night())


def test_without_repetition_no_interval_is_invented() -> None:
    text = markdown([baseline(1.7), tried(1, VerdictKind.KEEP, ("confirm", 1.6))])
    assert "95% interval 1" not in text and "noise: not measured" in text.lower()


def test_the_summary_is_json() -> None:
    summary = summarize(Recorded(night()))
    again = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert again["verdicts"] == {"keep": 2, "discard": 2, "prune": 1, "crash": 2, "invalid": 1, "open": 0}
    assert again["trials"]["total"] == 3 + 1 + 3 + 1 + 2 + 3 + 1 + 1 + 1
    assert again["tip_commit"] == "0005".ljust(40, "c")
    assert again["cost"]["dollars_per_keep"] == pytest.approx(0.04)
    json.dumps(summarize(Recorded([])).to_dict(), allow_nan=False)


def test_files_are_written_and_stand_alone(tmp_path: Path) -> None:
    report = write_report(Recorded(night()), DIFF, tmp_path / "new" / "folder")
    page = report.html.read_text()
    assert "default-src 'none'" in page and "<svg" in page
    assert not re.search(r"""(src|href)=["'](?!#)""", page)
    assert '<span class="add">+LR = 5</span>' in page
    assert report.png.name in report.markdown.read_text()


def test_a_box_that_only_trains_writes_the_report_without_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for absent in ("matplotlib", "scipy", "scipy.special"):
        monkeypatch.setitem(sys.modules, absent, None)
    report = write_report(Recorded(night()), DIFF, tmp_path)
    assert report.png is None and not list(tmp_path.glob("progress*"))
    assert "matplotlib is not installed" in report.markdown.read_text()
    assert "<svg" not in report.html.read_text() and "95%" in report.html.read_text()


def test_candidates_and_proposers_cannot_write_markup(tmp_path: Path) -> None:
    evil = [
        baseline(1.7, 1.71),
        tried(1, VerdictKind.KEEP, ("confirm", 1.6), hypothesis=EVIL, reason=EVIL),
        tried(2, VerdictKind.CRASH, hypothesis=EVIL, reason=EVIL),
    ]
    diff = f"diff --git a/x b/x\n+```\n+</code></pre>{EVIL}\n+~~~~\n"
    history = Recorded(evil, replace(INFO, device=EVIL, brief=EVIL, data={EVIL: EVIL}))
    report = write_report(history, diff, tmp_path)
    seen = Page(report.html.read_text())
    assert not seen.tags & {"script", "img", "iframe", "object", "em"}
    assert all(link.startswith("#part-") for link in seen.links)
    assert not {a for a in seen.attributes if a.startswith("on")}
    assert "<script>alert(1)</script>" in seen.text  # shown, as what it is
    for text in (report.html.read_text(), report.markdown.read_text()):
        assert not re.search("[\x00\x1b\x9b\u202e]", text)


@settings(max_examples=100)
@given(st.text(st.characters(codec=None), max_size=120))
def test_foreign_text_shows_as_itself(text: str) -> None:
    page = Page(
        to_html(
            f"x {escape(text)} y\n\n{table(['a', 'b'], [[escape(text), code(text)]])}", "t", {"p.png": SVG}
        )
    )
    assert page.tags <= HARMLESS.tags
    assert page.attributes <= HARMLESS.attributes
    line = " ".join(one_line(text).split())
    assert " ".join(page.text.split()).count(line) >= 2


@example("a\n```\n<b>", "diff")
@example("````\n```", "")
@settings(max_examples=100)
@given(st.text(st.sampled_from("`~\n a<>&-+@|\\"), max_size=80), st.sampled_from(["", "diff"]))
def test_a_fence_cannot_be_left(text: str, language: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"{fence(text, language)}\n\nafter")
    assert [t.type for t in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    page = Page(to_html(fence(text, language), "t", {"p.png": SVG}))
    assert page.tags <= HARMLESS.tags | {"span"}


def test_secrets_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-very-secret")
    leak = "leaked sk-ant-very-secret"
    info = replace(
        INFO, config={"tracking": {"uri": "http://u:hunter2pass@h"}, "judge": {"api_key": "k-secret"}}
    )
    history = Recorded(
        [baseline(1.7), tried(1, VerdictKind.KEEP, ("confirm", 1.6), hypothesis=leak, reason=leak)], info
    )
    report = write_report(history, f"+{leak}\n", tmp_path)
    for path in (report.markdown, report.html, report.png.with_suffix(".svg")):
        text = path.read_text()
        assert not [s for s in ("very-secret", "hunter2pass", "k-secret") if s in text], path.name


def test_long_things_are_cut_and_say_so() -> None:
    text = markdown(night(), "".join(f"+line {i}\n" for i in range(5000)))
    assert "Cut after 3000 of 5000 lines" in text
    crashes = [tried(n, VerdictKind.CRASH, reason="boom") for n in range(1, 30)]
    assert "and 17 more" in markdown([baseline(1.7), *crashes])


def test_a_thousand_experiments_make_a_page_of_a_thousand_rows(tmp_path: Path) -> None:
    tries = [
        tried(n, VerdictKind.DISCARD, ("screen", 1.8 + n / 1e4), hypothesis=f"idea {n}")
        for n in range(1, 1001)
    ]
    page = write_report(Recorded([baseline(1.7, 1.71), *tries]), "", tmp_path).html.read_text()
    assert page.count("<tr>") > 1000 and "idea 1000" in page


def test_who_proposed_what_is_told_where_several_did() -> None:
    search = night()
    assert "Proposer" not in to_markdown(summarize(Recorded(search)), "", None)
    other = search[2].proposal
    assert other is not None
    search[2] = replace(search[2], proposal=replace(other, proposer="optuna", cost=Cost()))
    summary = summarize(Recorded(search))
    kept = summary.proposers["optuna"]
    assert (kept.tried, kept.kept, kept.dollars) == (1, 1, 0) and kept.gain == pytest.approx(0.05)
    assert summary.proposers["anthropic:model"].tried == len(search) - 2
    assert re.search(r"optuna.*\+0\.0500", to_markdown(summary, "", None))


def test_what_trials_paid_for_models_is_a_cost_of_its_own_claims_included() -> None:
    search = night()
    first = search[0].trials[0]
    assert first.result is not None
    metrics = {**first.result.metrics, MODEL_DOLLARS: 0.75}
    paid = replace(first, result=replace(first.result, metrics=metrics))
    search[0] = replace(search[0], trials=(paid, *search[0].trials[1:]))
    assert "Models that trials asked | $0.75" in markdown(search)
    assert "Models that trials asked" not in markdown(night())
    cost = summarize(Recorded(search, notes={PAID_AFTER: "0.5"})).cost
    assert cost.trial_dollars == 1.25
    kept = sum(e.kept for e in search)
    assert cost.dollars_per_keep == pytest.approx((cost.dollars + 1.25) / kept)


def test_a_claim_on_other_data_says_on_which_and_calls_no_smaller_gain_there_overfitting() -> None:
    result = Claim(0.3207, (0.1161, 0.5252), 0.0116, 1.0, -0.0, 0.3207, (2, 2), 0.0, overfit=0.032)
    tip = [e for e in in_order(night()) if e.kept][-1].commit
    record = ClaimRecord(1, 1, "b" * 40, tip, 1.0, (), finished=2.0, result=result)
    there = replace(record, elsewhere="data=books")
    gains = Metric("gain", "gain in bits", Direction.MAXIMIZE, digits=4, ratio=False)
    said = words.claim_sentence(there, gains)
    assert said.startswith("Elsewhere (data=books) 0.0000 became 0.3207 gain in bits: a gain of 0.3207")
    for claim, told in ((record, True), (there, False)):
        notes = {CLAIMS: json.dumps([claim.to_dict()])}
        text = to_markdown(summarize(Recorded(night(), notes=notes)), "", None)
        assert ("Overfitting" in text) is told and ("## Result elsewhere" in text) is not told


def test_a_machine_that_changed_is_told() -> None:
    judge = create_judge("default", [(0, 1.70), (1, 1.71), (2, 1.69)])
    judge.incumbent.drifts = 2  # type: ignore[attr-defined]
    summary = summarize(Recorded(night(), notes={"judge": judge.to_json()}))
    text = to_markdown(summary, "", None)
    assert "The machine changed 2 times" in text
    assert "The machine changed" not in markdown(night())


def test_what_a_gain_must_be_is_told_as_three_numbers() -> None:
    judge = create_judge("default", [(0, 1.70), (1, 1.71), (2, 1.69)])
    summary = summarize(Recorded(night(), notes={"judge": judge.to_json()}))
    needed, text = summary.bars, to_markdown(summary, "", None)
    assert needed is not None and needed.three_runs is not None
    for number in (needed.second_run, needed.three_runs, needed.ever):
        assert f"about {summary.metric.text(number)} " in text.partition("What a further gain must be")[2]
    assert "What a further gain must be" not in markdown(night())


def test_every_experiment_is_told_with_its_interval_seeds_and_evidence() -> None:
    text = markdown(night())
    assert (
        "| −0.0500 ± 0.0050 over 3 seeds | 3.00 |" in text
        and "| +0.0200 ± 0.0050 over 1 seed | 3.00 |" in text
    )


def test_a_maximised_metric_reads_right_from_headline_to_table(tmp_path: Path) -> None:
    history = Recorded(by_accuracy(night()), ACCURACY_INFO)
    summary = summarize(history)
    assert headline(summary) == "7.31% higher accuracy"
    assert summary.to_dict()["metric"] == {
        "name": "val_accuracy",
        "unit": "accuracy",
        "lower_is_better": False,
    }
    text = write_report(history, "", tmp_path).markdown.read_text()
    assert "from **1.300** to **1.395** accuracy (higher is better): a gain of **0.095**" in text
    assert "| +0.0500 ± 0.0050 over 3 seeds |" in text, "a gain is a positive change"
    assert "| −0.0200 ± 0.0050 over 1 seed |" in text, "a loss is a negative one"
    assert "Change of val_accuracy" in text and "bits" not in text and "bpb" not in text


@pytest.mark.parametrize(("kept", "worse"), [(1.2, True), (1.4, False)])
def test_extra_checks_are_found_by_the_name_of_the_metric(kept: float, worse: bool) -> None:
    search = by_accuracy(night())
    for index, score in ((0, 1.3), (5, kept)):
        trial = search[index].trials[-1]
        assert trial.result
        measured = replace(trial.result, metrics={"held_accuracy": score, "held_bpb": 9.0})
        search[index] = replace(search[index], trials=(replace(trial, result=measured),))
    text = to_markdown(summarize(Recorded(search, ACCURACY_INFO)), "", None)
    assert f"on data held back 1.300 became {kept:.3f} (gain {kept - 1.3:+.3f})" in text
    assert ("may not carry over" in text) == worse


def test_the_framework_s_report_and_tracking_do_not_know_the_task() -> None:
    root = Path(autoresearch.__file__).parent
    files = [p for room in ("report", "tracking") for p in (root / room).rglob("*") if p.is_file()]
    files = [p for p in files if p.suffix in (".py", ".md", ".html")]
    words = re.compile(r"bpb|bits per byte|\bgpt\b|torch|nanomodel", re.IGNORECASE)
    assert len(files) > 10
    assert not [(p.name, words.findall(p.read_text())) for p in files if words.search(p.read_text())]


def test_the_page_has_contents_and_folds_diffs_and_settings(tmp_path: Path) -> None:
    search = [replace(e, diff=f"diff --git a/x b/x\n+LR = {e.number}\n") for e in night()]
    report = write_report(Recorded(search), DIFF, tmp_path)
    page = report.html.read_text()
    links = re.findall(r'<a href="#(part-\d+)">([^<]+)</a>', page)
    titles = re.findall(r'<h2 id="(part-\d+)">([^<]+)</h2>', page)
    assert links == titles and "Everything that was tried" in dict(links).values()
    folded = re.findall(r"<summary>([^<]+)</summary>", page)
    assert len([title for title in folded if title.startswith("Diff of #")]) == 8
    assert folded[-1] == "All settings" and page.count("<details>") == page.count("</details>") == len(folded)
    assert page.index("Written ") < page.index("<summary>All settings")
    assert "### Diff of #1:" in report.markdown.read_text()


def test_cells_say_their_column_where_a_narrow_window_has_no_header(tmp_path: Path) -> None:
    page = write_report(Recorded(night()), DIFF, tmp_path).html.read_text()
    assert '<td data-label="Verdict" class="verdict keep">keep</td>' in page
    assert re.search(r'<span class="plot" role="img" aria-label="Progress of the search">', page)


def test_what_each_kind_of_proposal_brought_is_summed_up() -> None:
    search = [
        baseline(1.7, 1.71),
        tried(1, VerdictKind.KEEP, ("confirm", 1.6)),
        tried(2, VerdictKind.CRASH),
        tried(3, VerdictKind.DISCARD, ("screen", 1.69)),
    ]
    summary = summarize(Recorded(search))
    (kind,) = summary.kinds.values()
    assert (kind.tried, kind.kept, kind.failed, kind.scored) == (3, 1, 1, 2)
    assert "What was learned, by kind" in to_markdown(summary, "", None)


def test_a_repeated_override_is_told_once() -> None:
    config = {**INFO.config, "overrides": ["experiments=5", "name=x", "experiments=9"]}
    assert words.command(summarize(Recorded(night(), replace(INFO, config=config)))) == (
        "autoresearch run name=NAME experiments=9"
    )


@pytest.mark.parametrize("experiments", [night(), night()[:2]])
def test_scores_that_candidates_said_themselves_are_called_so_at_the_top(
    experiments: list[Experiment],
) -> None:
    said = "Candidates say their own scores, and nothing checks them"
    page = markdown(experiments, trust="printed")
    assert said in page[: page.index("\n## ")] and "printed" in page
    assert said not in markdown(experiments, trust="artifact") and "`artifact`" in markdown(
        experiments, trust="artifact"
    )
    assert said not in markdown(experiments)


def test_no_percentage_is_told_of_a_logarithm() -> None:
    info = replace(INFO, metric=replace(INFO.metric, ratio=False))
    summary = summarize(Recorded(night(), info))
    assert headline(summary) == "0.0950 lower bits per byte"
    assert summary.gain is not None and summary.gain.relative is None
    assert "%" not in to_markdown(summary, "", None).splitlines()[0]


def test_a_machine_that_others_used_is_told() -> None:
    def timed(trial: Trial, cpu_seconds: float) -> Trial:
        if trial.result is None:
            return trial
        metrics = {**trial.result.metrics, "train_seconds": 10.0, "cpu_seconds": cpu_seconds}
        return replace(trial, result=replace(trial.result, metrics=metrics))

    def busy(cpu_seconds: float) -> str:
        found = [replace(e, trials=tuple(timed(t, cpu_seconds) for t in e.trials)) for e in night()]
        return markdown(found, device="cpu, 1 thread, 2 trials at a time")

    assert "waited for a core in 75% of their time" in busy(2.5)
    assert "waited for a core" not in busy(9.0) and "waited for a core" not in markdown(night())


@pytest.mark.slow
def test_a_browser_shows_the_page_wide_narrow_dark_and_printed(tmp_path: Path, browser: Browser) -> None:
    made = write_report(Recorded(night()), DIFF, tmp_path).html
    seen = {}
    for width, dark in ((1200, False), (400, False), (1200, True)):
        browser.open(made.as_uri(), width, dark=dark)
        browser.wait("document.querySelectorAll('.plot svg').length > 0")
        assert browser.eval("document.documentElement.scrollWidth") <= width, "nothing is cut off"
        letter = "document.querySelector('.plot svg text').getBoundingClientRect().height"
        assert browser.eval(letter) >= 6, "the picture can be read"
        seen[width, dark] = browser.eval("getComputedStyle(document.body).backgroundColor")
    assert seen[1200, True] != seen[1200, False]
    unnamed = "[...document.querySelectorAll('.plot')].filter(p => !p.getAttribute('aria-label')).length"
    assert browser.eval(unnamed) == 0, "each picture says what it shows"
    browser.open(made.as_uri(), 700)
    browser.print_layout()
    browser.wait("getComputedStyle(document.querySelector('.table')).overflowX == 'visible'")
