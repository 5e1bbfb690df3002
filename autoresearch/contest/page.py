"""What a contest found, as one page: who won by how much, how sure that is, how, and at what cost.

The table and the curves are those of `report.compare`; gains are the means of complete rounds, and what is
established is said by the race, whose intervals allow for the looks after each round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from autoresearch.config import load
from autoresearch.contest.contest import Contest, Standing
from autoresearch.contest.race import Difference
from autoresearch.report.compare import By, Comparison, Group, as_text, compare, draw_comparison
from autoresearch.report.estimates import student_quantile
from autoresearch.report.markdown import escape, fence
from autoresearch.report.sections.instructions import as_text as as_table
from autoresearch.report.sections.instructions import shares
from autoresearch.report.summary import Summary
from autoresearch.tasks.brief.result import Result, gained, ledger
from autoresearch.tasks.brief.settings import cap, most_paid
from autoresearch.text import count, duration
from autoresearch.types import Cost, Metric

SHARED = "Every brief had the same budget, starting commit, proposer and search seeds."


def comparison(contest: Contest, standing: Standing, searches: Sequence[Summary]) -> Comparison:
    """The briefs side by side, the best first."""
    found = compare(searches, By.BRIEF)
    groups = [_measured(group, standing, searches) for group in found.groups]
    groups.sort(key=lambda group: standing.ranking.index(group.label))
    said = [_sentence(pair, contest.score) for pair in standing.pairs]
    statements = (headline(standing), *per_dollar(contest, standing), *said, *unlike_in_vain(contest))
    return replace(found, sealed=True, groups=tuple(groups), statements=statements)


def unlike_in_vain(contest: Contest) -> list[str]:
    """What to say of briefs that differ in nothing that the proposer reads, before the start and after."""
    proposer = load(list(contest.plan.settings)).proposer["name"]
    return [
        f"{', '.join(names[:-1])} and {names[-1]} are one brief to proposer={proposer}, which reads nothing "
        "of what they differ in: what is found between them is chance. Language models read all of a brief."
        for names in contest.alike
    ]


def announcement(contest: Contest) -> list[str]:
    """What is said before a contest runs: who competes, for how long, at what cost, and where to look."""
    plan = contest.plan
    names = ", ".join(name for name, _ in plan.briefs)
    each = count(plan.spend.experiments, "experiment")
    each += f", {plan.spend.minutes:g} minutes" if plan.spend.minutes else ""
    paid = most_paid(cap(plan.settings, plan.spend), plan.dollars, "--dollars")
    rounds = f"at most {count(plan.rounds, 'round')}, in each a search of {each} for each brief"
    return [
        f"Contest {contest.folder.name} of {names}: {rounds}." + (f" {paid}." if paid else ""),
        f"Watch the search that runs: autoresearch watch runs={contest.searches.folder}",
    ]


def per_dollar(contest: Contest, standing: Standing) -> list[str]:
    """The mean gain per dollar of each brief, if that is what is raced."""
    if standing.device_hour is None or not standing.rounds:
        return []
    means = [f"{name} {fmean(standing.scores[name].values()):.3g}" for name in standing.ranking]
    priced = f"an hour of a device counts as {standing.device_hour:g} dollars"
    return [f"What is raced is the gain per dollar ({priced}): {', '.join(means)} {contest.score.unit}."]


def headline(standing: Standing) -> str:
    """Who won, in a sentence."""
    if not standing.pairs:
        return "No round is complete yet."
    after = f"after {count(standing.rounds, 'round')}"
    if winner := standing.winner:
        order = " > ".join(standing.ranking)
        rest = "" if standing.racing else f"; the whole ranking is established: {order}"
        return f"{winner} is better than every other brief: this is established at 95%, {after}{rest}."
    return f"Which brief is the best is not established, {after}."


def labelled(contests: Sequence[Contest], searches: Sequence[Summary]) -> list[Summary]:
    """The inner searches of contests and others, each under the name by which they are compared."""
    found = [
        replace(s, info=replace(s.info, brief=f"{held.folder.name}: {s.info.brief}"))
        for held in contests
        for s in held.summaries()
    ]
    return found + [replace(s, info=replace(s.info, brief=s.info.name)) for s in searches]


def headlines(contests: Sequence[Contest]) -> list[str]:
    """Who won each contest; its own intervals allow for the looks and compare searches of the same seed."""
    return [f"Contest {held.folder.name}: {headline(held.standing())}" for held in contests]


def to_dict(contest: Contest) -> dict[str, Any]:
    """What is known, for a program."""
    standing = contest.standing()
    searches = contest.summaries()
    known = comparison(contest, standing, searches).to_dict() if searches else {}
    return {
        "contest": contest.folder.name,
        "rounds": standing.rounds,
        "winner": standing.winner,
        "ranking": standing.ranking,
        "racing": standing.racing,
        "pairs": [asdict(pair) | {"established": pair.established} for pair in standing.pairs],
        "gains": standing.gains,
        "scores": standing.scores,
        "alike": contest.alike,
        "dollars": contest.searches.spent(),
    } | known


def to_text(contest: Contest) -> str:
    """What is known, for a terminal."""
    if not (searches := contest.summaries()):
        return "\n".join(["No inner search has ended yet.", *unlike_in_vain(contest)])
    return as_text(comparison(contest, contest.standing(), searches))


def write(contest: Contest) -> Path:
    """Write the page, and beside it the evidence for whoever writes a better brief; gives the page."""
    from autoresearch.report.page import to_html
    from autoresearch.report.plots.progress import save

    searches, page = contest.summaries(), contest.folder / "contest.html"
    title = f"Contest {contest.folder.name}: {', '.join(name for name, _ in contest.plan.briefs)}"
    with TemporaryDirectory() as folder:
        drawn = save(lambda: draw_comparison(searches, By.BRIEF), Path(folder) / "figure") if searches else ()
        pictures = {"figure": drawn[0].read_text(encoding="utf-8")} if drawn else {}
    picture = "![Mean gain so far, with 95% bands, against what it cost](figure)\n\n" if drawn else ""
    plan = contest.plan
    told = [
        f"# {escape(title)}",
        escape(headline(contest.standing()), 1000),
        f"{picture}{fence(to_text(contest))}",
        *_rounds(contest.standing(), contest.score),
        "## How it was done",
        f"{SHARED} Each inner search: {count(plan.spend.experiments, 'experiment')}"
        + (f", at most {plan.spend.minutes:g} minutes" if plan.spend.minutes else "")
        + ". A gain is what the inner judge claims on the sealed split; 0 if nothing was kept or could be "
        "claimed. Rounds are paired by the seed of the search. Intervals hold at all looks and for all pairs "
        "together (sequential t-test, Perez-Ortiz et al. 2024).",
        fence("\n".join(plan.settings)),
        "## Where gains came from, by brief",
        *(f"### {escape(name)}\n\n{fence(_ledger(contest, name))}" for name, _ in plan.briefs),
        "## The briefs",
        *(f"### {escape(name)}\n\n{fence(text)}" for name, text in plan.briefs),
    ]
    page.write_text(to_html("\n\n".join(told) + "\n", title, pictures), encoding="utf-8")
    (contest.folder / "evidence.md").write_text(evidence(contest), encoding="utf-8")
    return page


def _rounds(standing: Standing, metric: Metric) -> list[str]:
    """A table of what each brief gained in each complete round; a brief that is out of the race has a gap."""
    if not standing.rounds:
        return []
    names, scores = standing.ranking, standing.scores
    rows = ["| round |" + "".join(f" {escape(name)} |" for name in names), "|---" * (len(names) + 1) + "|"]
    for number in range(standing.rounds):
        found = (scores[name].get(number) for name in names)
        cells = ("" if score is None else f"{score:+.{metric.digits}f}" for score in found)
        rows.append(f"| {number + 1} |" + "".join(f" {cell} |" for cell in cells))
    return [f"## Gains by round, in {escape(metric.unit)}", "\n".join(rows)]


def evidence(contest: Contest) -> str:
    """What a model is shown that writes a better brief: the ranking, and the ledger of each brief."""
    parts = [to_text(contest)]
    for name, text in contest.plan.briefs:
        parts.append(f"== The brief {name}\n{text.strip()}\n\n== What it led to\n{_ledger(contest, name)}")
    return "\n\n".join(parts) + "\n"


def _ledger(contest: Contest, name: str) -> str:
    found = list(contest.standing().results[name].values())
    experiments = [e for result in found for e in result.experiments]
    total = gained(experiments)
    digits = contest.metric.digits
    head = [f"inner searches: {len(found)}; {total:+.{digits}f} gained by the judges' estimates in all"]
    head += [f"no claim: {result.void}" for result in found if result.void]
    seconds, dollars = sum(r.device_seconds for r in found), sum(r.dollars for r in found)
    if found:
        each = f"{duration(seconds / len(found))} of devices and {dollars / len(found):.2f} dollars"
        head.append(f"a search cost {each}")
        head += _by_role(found)
    paid = shares(experiments, [dict(contest.plan.briefs)[name]])
    told = ["", "instructions of the brief, as proposals name them:", as_table(paid, contest.metric)]
    return "\n".join([*head, ledger(experiments, contest.metric), *(told if paid else [])])


def _by_role(found: Sequence[Result]) -> list[str]:
    """What each role's calls cost in a search, if the brief has roles."""
    names = list(dict.fromkeys(role for result in found for role in result.roles))
    if set(names) <= {"proposer"}:
        return []
    lines = []
    for name in names:
        cost = sum((result.roles.get(name, Cost()) for result in found), Cost())
        each = f"{cost.calls / len(found):.1f} calls, {cost.dollars / len(found):.4f} dollars"
        lines.append(f"  {name}: {each}")
    return lines


def _measured(group: Group, standing: Standing, searches: Sequence[Summary]) -> Group:
    """The group with the gains that were claimed, in complete rounds."""
    gains = list(standing.gains[group.label].values())
    if len(gains) < 2:
        return replace(group, gain=fmean(gains) if gains else 0.0, error=None)
    spread = stdev(gains) / len(gains) ** 0.5
    # As a normal error with the same 95% interval.
    error = spread * student_quantile(0.975, len(gains) - 1) / NormalDist().inv_cdf(0.975)
    return replace(group, gain=fmean(gains), error=error)


def _sentence(pair: Difference, metric: Metric) -> str:
    more = f"{pair.better} gained {metric.text(pair.mean)} more than {pair.worse}"
    if not pair.mean:
        more = f"{pair.better} and {pair.worse} gained the same on average"
    low, high = pair.interval
    if high == float("inf"):
        return f"{more} in {count(pair.rounds, 'round')}, too few for an interval: not established."
    sure = "established" if pair.established else "not established"
    ends = f"{metric.text(low)} to {metric.text(high)}"
    return f"{more} (interval {ends}, valid at every look, {count(pair.rounds, 'round')}): {sure}."
