"""The sentences, in Markdown, that say what came of a search.

They are shown in the report, by `status`, by the final test and in MLflow. What is not known is not said: no
gain without an interval where noise was measured, no success where nothing was kept. Text from candidates and
proposers is escaped so that it cannot become markup. Not covered: the
order of the report (`page` and its template) and pictures (`plot`).
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Mapping, Sequence

from autoresearch.judge.finished.audit import SHARE, false_share
from autoresearch.report.summary import Summary
from autoresearch.store.records.claims import AuditRecord, ClaimRecord
from autoresearch.store.records.notes import SettingChange
from autoresearch.tasks.base import TRUST, Trust
from autoresearch.text import change_text, clean, count, flatten, one_line, times
from autoresearch.types import Direction, Metric, VerdictKind

VERDICTS = {
    "keep": "kept",
    "discard": "discarded",
    "prune": "stopped early",
    "crash": "crashed",
    "invalid": "invalid",
    "open": "unfinished",
}
SPLITS = {"held": "on data held back", "other": "on data of another kind"}
MEASURED = ("budget", "judge", "sandbox", "executor", "guards", "baselines", "seed")
"""Configuration that decides what a score means."""
_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&$!]")
_LINKS = re.compile(r"(?<=:)/(?=/)|(?<=\bwww)\.", re.IGNORECASE)


TIMES, CROWDED = ("train_seconds", "cpu_seconds"), 0.3
"""What a training measures of its time, and the share of waiting from which on the machine counts as busy."""


def escape(text: str, limit: int = 200) -> str:
    """Foreign text as one line that Markdown shows as it is, without links, emphasis or markup."""
    return _LINKS.sub(lambda m: "\\" + m[0], _SPECIAL.sub(lambda m: "\\" + m[0], one_line(text, limit)))


def code(text: str) -> str:
    """Foreign text as a Markdown code span on one line; works inside tables."""
    line = one_line(text).replace("|", "¦").replace("`", "'")
    return f"`{line}`" if line else ""


def fence(text: str, language: str = "") -> str:
    """Foreign text as a code block that it cannot leave."""
    text = clean(text).rstrip("\n")
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{ticks}{language}\n{text}\n{ticks}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """A Markdown table of cells that are Markdown already; `numeric` columns are set to the right."""
    rule = ["---:" if i in numeric else "---" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def headline(s: Summary) -> str:
    """What came of the search, in a few words."""
    if s.estimates.baseline is None:
        return "nothing has been scored yet"
    if s.gain is None:
        nothing = "nothing kept" if s.info.finished else "nothing kept so far"
        return nothing if s.tried else "only the starting point has been measured"
    if s.claim and (result := s.claim.result):
        if result.interval[0] <= 0:
            return "no gain on unseen data"
        return _better(s.metric, result.effect, result.baseline) + " on unseen data"
    return _better(s.metric, s.gain.absolute, s.estimates.baseline.mean) if s.gain.absolute > 0 else "no gain"


def _better(metric: Metric, gain: float, before: float) -> str:
    word = direction(metric)
    share = metric.share(gain, before)
    return f"{metric.text(gain) if share is None else f'{100 * share:.2f}%'} {word} {metric.unit}"


def direction(metric: Metric) -> str:
    """The word for a better score: "lower" or "higher"."""
    return "lower" if metric.direction is Direction.MINIMIZE else "higher"


def lead(s: Summary) -> str:
    """The first sentences of the report."""
    start, best = s.estimates.baseline, s.estimates.best
    running = "" if s.info.finished else " The search has not ended; this is the result so far."
    if start is None:
        return f"No trial has ended with a score, so there is nothing to compare.{running}"
    if s.info.trust == Trust.PRINTED:
        running = f" {TRUST[Trust.PRINTED]}{running}"
    text, unit = s.metric.text, s.metric.unit
    noise = "not measured"
    if s.estimates.noise is not None:
        noise = f"{text(s.estimates.noise)} (one standard deviation between seeds)"
    if s.gain is None or best is None:
        none = f"None of {s.tried} changes could be confirmed" if s.tried else "Nothing was tried yet"
        first = f"{text(start.mean)} {unit} over {count(start.trials, 'run')}"
        return f"{none}: {first}; noise {noise}.{running}"
    went = f"from **{text(start.mean)}** to **{text(best.estimate.mean)}** {unit}"
    gain = f"Validation went {went} ({direction(s.metric)} is better): a gain of **{text(s.gain.absolute)}**"
    if s.claim and s.claim.result:
        sealed = claim_sentence(s.claim, s.metric)
        gain = f"{sealed} By the search's own estimate, on the validation data that chose it, the score went "
        gain += f"{went}: a gain of {text(s.gain.absolute)}"
    if s.gain.interval:
        low, high = s.gain.interval
        gain += f", 95% interval {text(low)} to {text(high)}"
        gain += ". The interval includes zero: this may be noise" if low <= 0 else ""
    return f"{gain}. Kept: {s.verdicts['keep']} of {count(s.tried, 'change')}. Noise: {noise}.{running}"


def drift(s: Summary) -> str:
    """Whether the machine changed, for the report and for `status`; empty if it did not."""
    if not s.judge or not s.judge.drifts:
        return ""
    return (
        f"The machine changed {times(s.judge.drifts)}, or a kept change gains only at times: the incumbent's "
        "re-runs did not score as before. Runs from before that no longer count. The starting point is shown "
        "as it would score now; that a kept change became worse does not move it."
    )


def crowded(s: Summary) -> str:
    """How much of their time trainings on a CPU waited for other programs; empty if that was little."""
    threads = re.search(r"^cpu, (\d+) threads?\b", s.info.device)
    measured = [t.result.metrics for e in s.experiments for t in e.trials if t.result and t.score is not None]
    pairs = [(m["train_seconds"], m["cpu_seconds"]) for m in measured if {*TIMES} <= m.keys()]
    if not threads or not pairs:
        return ""
    wall, used = (sum(column) for column in zip(*pairs, strict=True))
    waited = 1 - used / int(threads[1]) / wall if wall else 0.0
    if waited < CROWDED:
        return ""
    return f"Busy with other programs: trainings waited for a core in {waited:.0%} of their time"


def verdicts(s: Summary) -> str:
    """How many experiments there are of each verdict."""
    return ", ".join(f"{n} {VERDICTS[name]}" for name, n in s.verdicts.items() if n) or "none"


def extra_checks(s: Summary) -> str:
    """Whether the gain holds on the extra splits; empty if they were not measured."""
    parts, worse = [], []
    for check in s.guards:
        where, gain = SPLITS[check.split], s.metric.gain(check.baseline, check.best)
        scores = f"{s.metric.text(check.baseline)} became {s.metric.text(check.best)}"
        parts.append(f"{where} {scores} (gain {gain:+.{s.metric.digits}f})")
        worse += [where] if gain < 0 else []
    if not parts:
        return ""
    text = f"Extra checks (not used to decide): {'; '.join(parts)}."
    return text + (f" **It got worse {' and '.join(worse)}: the gain may not carry over.**" if worse else "")


def claim_sentence(record: ClaimRecord, metric: Metric) -> str:
    """The result on the sealed test set in a sentence or two."""
    result = record.result
    if result is None:
        if record.finished is None:
            trained = sum(access.validation is not None for access in record.accesses)
            return (
                f"The final test is not finished: {trained} of {len(record.accesses)} models are trained. "
                "`autoresearch claim` goes on with it."
            )
        return void_sentence(record)
    low, high = result.interval
    before, after = result.seeds
    where = f"Elsewhere ({one_line(record.elsewhere)})" if record.elsewhere else "On the sealed test set"
    text = (
        f"{where} {metric.text(result.baseline)} became {metric.text(result.tip)} "
        f"{metric.unit}: a gain of {metric.text(result.effect)}, 95% interval {metric.text(low)} to "
        f"{metric.text(high)}, from {before} baseline and {after} final trainings, in pairs on fresh seeds."
    )
    text += " The interval includes zero: this is no evidence of a gain." if low <= 0 else ""
    if record.shares:
        text += f" Each training was scored on one of {record.shares} shares that no other program had seen."
    if record.blind:
        gain, error = record.blind
        text += f" By answers given blind alone the gain is {metric.text(gain)} ± {metric.text(2 * error)}."
    return text


def void_sentence(record: ClaimRecord) -> str:
    """Why a final test has no result."""
    if not record.void:  # of an older version
        return f"There is no result on the sealed test set: {failed_runs(record)} runs failed."
    text = f"The final test of experiment {record.experiment} is void: {one_line(record.void)}."
    return text + (" What it had kept was taken back." if record.caught else "")


def near_misses(s: Summary) -> str:
    """The discarded gains with the strongest evidence, at most five, as Markdown; empty if there are none."""
    discarded = [
        (e, v) for e in s.experiments if (v := e.verdict) and v.kind is VerdictKind.DISCARD and e.proposal
    ]
    gains = [(e, v) for e, v in discarded if (v.effect or 0.0) > 0 and (v.evidence or 0.0) > 0]
    best = sorted(gains, key=lambda pair: -(pair[1].evidence or 0.0))[:5]
    titles = {e.number: escape(e.proposal.hypothesis, 80) for e, _ in best if e.proposal}
    return "; ".join(f"#{e.number} {titles[e.number]} ({escape(change_text(v, s.metric))})" for e, v in best)


def audit_lines(record: AuditRecord, metric: Metric) -> list[str]:
    """An audit in lines for a terminal; effects are gains, so positive is better."""

    def signed(value: float) -> str:
        return f"{value:+.{metric.digits}f}"

    text = [f"{'#':>4}  {'gain':>8}  {'95% interval':>20}  doubt"]
    for i, (number, found) in enumerate(zip(record.keeps, record.audited, strict=True)):
        interval = f"{signed(found.interval[0])} to {signed(found.interval[1])}"
        note = "  to be taken out" if i in record.removed else ""
        note = note or ("" if record.separable[i] else "  later changes build on it")
        text.append(f"{number:4d}  {signed(found.effect):>8}  {interval:>20}  {found.doubt:5.0%}{note}")
    done = sum(run.score is not None for run in record.runs)
    text.append(f"{done} trainings with {record.design.left_out} left out; gains are taken to add up.")
    if record.audited and (share := false_share(record.audited, record.removed)) > SHARE:
        text.append(f"Of what stays, {share:.0%} is expected to gain nothing: it cannot be left out.")
    if record.branch:
        text.append(f"The branch {record.branch} has the rest.")
    return text


def failed_runs(record: ClaimRecord) -> int:
    """How many runs of a final test failed."""
    return sum(access.given_up for access in record.accesses)


def test_set_uses(claims: Sequence[ClaimRecord]) -> str:
    """How often the sealed test set was used."""
    used = [sum(access.looked for access in claim.accesses) for claim in claims]
    dates = [minute(claim.started) for claim, models in zip(claims, used, strict=True) if models]
    if not dates:
        return "The test set has not been opened."
    opened = f"{times(len(dates))} ({', '.join(dates)})"
    return f"The test set was opened {opened}, for {count(sum(used), 'model')}."


def take_over(s: Summary) -> str:
    """The commands that take over what was kept."""
    branch, base = shlex.quote(s.info.branch), s.info.base_commit[:10]
    commands = {
        f"git log --oneline {base}..{branch}": "one commit for each kept change",
        f"git diff {base} {branch}": "all of it at once",
        f"autoresearch branch name={shlex.quote(s.info.name)} --without N": "the same without one of them",
        f"git merge {branch}": "take it",
    }
    task = s.info.config.get("task")
    if isinstance(task, Mapping) and (train := task.get("train")):
        run = f"python -m {train}" if re.fullmatch(r"[\w.]+", train) else train
        commands[f"git switch --detach {branch} && {run}"] = "train it once, with its own settings"
    width = max(len(command) for command in commands)
    return "\n".join(f"{command:{width}}  # {what}" for command, what in commands.items())


def method(s: Summary) -> str:
    """How the scores were measured and compared."""
    start, best = s.estimates.baseline, s.estimates.best
    word = "negative" if s.metric.direction is Direction.MINIMIZE else "positive"
    text = (
        f"Every score is {s.metric.unit} on the validation set, measured under the same budget for every "
        f"trial; {direction(s.metric)} is better. A change compares with the incumbent of its time, so a "
        f"gain is {word}; after ± stands half of its 95% interval. Evidence is the judge's test statistic: "
        "z, or where the strict judge keeps, an e-value."
    )
    if s.estimates.noise is not None:
        text += (
            " Noise is pooled over repeated runs of the same commit with different seeds "
            f"({s.estimates.freedom} degrees of freedom)."
        )
    if needed := s.needed:
        text += f" What a further gain must be: {needed}."
    if s.gain is None or start is None or best is None:
        return text
    runs = f"{count(start.trials, 'run')} of the starting point with {count(best.estimate.trials, 'run')}"
    text += f" The headline compares {runs} of the result, "
    text += (
        "as the judge estimates them: the expected effect of having picked the best is taken out, runs from "
        "before a change of the machine do not count, and the interval accounts for the choice of the "
        "validation set."
        if s.gain.judged
        else "by Student's t with the pooled noise; runs that only screened a candidate do not count. "
        "The runs that confirmed the last change also chose it, so expect the true gain to be slightly "
        "smaller."
    )
    if s.claim:
        return f"{text} The result on the sealed test set comes from other seeds and other data."
    return f"{text} The sealed test set was not used."


def settings(s: Summary) -> list[tuple[str, str]]:
    """What the search was about and how it was configured: names as plain text, values as Markdown."""
    rows = [("task, brief", f"{code(s.info.task)}, {code(s.info.brief)}"), ("device", code(s.info.device))]
    if s.info.trust:
        rows.append(("trust", f"{code(s.info.trust)}: {TRUST[Trust(s.info.trust)]}"))
    for brief in s.brief_changes:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(brief.time))
        rows.append(
            ("brief changed", f"{when}, {code(brief.name)} ({brief.hash}): {escape(brief.text, 120)}")
        )
    for change in s.setting_changes:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(change.time))
        rows.append(("setting changed", f"{when}, {code(setting_text(change))}"))
    rows += [("started from", code(s.info.base_commit)), ("tip", code(s.tip_commit))]
    measured = {k: s.info.config[k] for k in MEASURED if k in s.info.config}
    rows += [(k, code(str(v))) for k, v in flatten(measured).items()]
    data = flatten(s.info.data).items()
    return rows + [(f"data: {k}", code(str(v))) for k, v in data if not isinstance(v, list)]


def setting_text(change: SettingChange) -> str:
    """A changed setting in a line: `claim=8, was 0`."""
    before, after = (json.dumps(value) for value in (change.before, change.after))
    return one_line(f"{change.key}={after}, was {before}", 200)


def command(s: Summary) -> str:
    """The command that runs the same search again; empty if it is not known."""
    overrides = s.info.config.get("overrides")
    if not isinstance(overrides, Sequence) or isinstance(overrides, str):
        return ""
    last = {str(o).partition("=")[0]: shlex.quote(str(o)) for o in overrides}
    return " ".join(["autoresearch run name=NAME", *(o for key, o in last.items() if key != "name")])


def minute(seconds: float) -> str:
    """A Unix time in seconds, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
