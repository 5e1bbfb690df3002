"""Makes a candidate's commit message from the journal, and makes lost commits again.

A commit consists of the parent's sources with the proposal's edits, a message and a date, all of which the
journal has. So it can be made again with the same hash, for instance beside a fresh clone of the commit that
the search began with. A commit that comes out with another hash is not used. Text from a proposer is
flattened to one paragraph, so that it cannot pass for a trailer. Doing it twice does no more than doing it
once.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace

from autoresearch.edit.apply import apply
from autoresearch.errors import Refused, UserError
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal, SearchInfo
from autoresearch.store.records.notes import read_revoked
from autoresearch.text import count, evidence_text, guards_text, verdict_text
from autoresearch.types import Arm, Experiment, Metric


def commit_message(experiment: Experiment, metric: Metric, trust: str = "") -> str:
    """The commit message of an experiment: what was tried, and in trailers what came of it.

    Args:
        experiment: With its proposal, and as much else as is known; without a verdict there is no result.
        metric: The number that decides.
        trust: Who computes it; see `SearchInfo`.
    """
    proposal = experiment.proposal
    assert proposal, "the baseline is the user's own commit"
    subject = textwrap.shorten(_one_line(proposal.hypothesis), 72, placeholder="…")
    body = textwrap.fill(_one_line(f"{proposal.hypothesis} {proposal.mechanism}"), 78, break_long_words=False)
    trailers = {"Experiment": str(experiment.number), "Category": proposal.category.value}
    trailers["Proposer"] = _one_line(proposal.proposer)
    if verdict := experiment.verdict:
        trailers["Verdict"] = verdict.kind.value
        trailers["Result"] = verdict_text(verdict, metric)
        trailers["Evidence"] = evidence_text(verdict)
        trailers["Trust"] = trust
        if experiment.score is not None:
            trailers["Metric"] = f"{metric.name} {experiment.score:.6f}"
        if verdict.effect is not None:
            trailers["Delta"] = f"{metric.change(verdict.effect):+.6f}"
            if verdict.interval:
                low, high = sorted(metric.change(end) for end in verdict.interval)
                trailers["Delta"] += f" [{low:+.6f}, {high:+.6f}]"
        trailers["Seeds"] = " ".join(
            str(t.seed) for t in experiment.trials if t.arm != Arm.INCUMBENT and t.result
        )
        trailers["Guards"] = guards_text(verdict)
        trailers["Reason"] = _one_line(verdict.reason)
    lines = "\n".join(f"{key}: {value}" for key, value in trailers.items() if value)
    return f"{subject}\n\n{body}\n\n{lines}\n"


def _one_line(text: str) -> str:
    """One line of printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@dataclass(frozen=True)
class Rebuilt:
    """What was done to make git agree with the journal.

    Attributes:
        refs: How many candidates have a ref now.
        remade: Numbers of the experiments whose commit was gone, and was made again.
        missing: Numbers of the experiments whose commit is gone.
        branch: What was done about the branch, as a sentence.
    """

    refs: int
    remade: tuple[int, ...]
    missing: tuple[int, ...]
    branch: str


def rebuild(journal: Journal, repository: Repository, editable: Iterable[str]) -> Rebuilt:
    """Make lost commits again; point `refs/autoresearch/<name>/*` and the branch at their commits.

    A branch with commits of somebody else stays as it is.

    Args:
        journal: The search.
        repository: Where its commits belong.
        editable: Paths that candidates may change.
    """
    info, tried = journal.info(), [e for e in journal.experiments()[1:] if e.commit]
    present = repository.existing([info.base_commit, *(e.commit for e in tried)])
    lost = [e for e in tried if e.commit not in present]
    remade = []
    if info.base_commit in present:
        for e in lost:  # in order, so that parents come first
            if e.parent in present and _remake(repository, e, tuple(editable), info):
                present.add(e.commit)
                remade.append(e.number)
    reached = [e for e in tried if e.commit in present]
    refs = {f"refs/autoresearch/{info.name}/{e.number:04d}": e.commit for e in reached}
    now = repository.refs(f"refs/autoresearch/{info.name}")
    repository.unlock([*refs, f"refs/heads/{info.branch}"])
    repository.update_refs({ref: commit for ref, commit in refs.items() if now.get(ref) != commit})
    missing = tuple(e.number for e in lost if e.commit not in present)
    try:
        tip = _tip(journal)
        gone = tip not in present and f"{info.branch} cannot be made: its commit {tip[:10]} is gone"
        said = gone or move_branch(journal, repository)
    except UserError as moved:
        said = f"{moved} It is left as it is."
    return Rebuilt(len(reached), tuple(remade), missing, said)


def pack(journal: Journal, repository: Repository, numbers: Iterable[int]) -> int:
    """Put the objects of some recorded experiments into one file; gives their number.

    The commits that their trials measured, which no ref reaches once there is a verdict, are among them.
    """
    found = [journal.experiment(number) for number in numbers]
    commits = dict.fromkeys(c for e in found for c in (e.commit, *(t.commit for t in e.own)))
    return repository.pack(repository.existing(commits), journal.info().base_commit)


def move_branch(journal: Journal, repository: Repository) -> str:
    """Point the branch of a search at what was kept last; says where the branch is.

    A branch that is checked out somewhere stays where it is until later: what is checked out would no longer
    be what its branch says.

    Raises:
        UserError: If somebody has put other commits on the branch.
    """
    info, tip = journal.info(), _tip(journal)
    now, place = check_branch(journal, repository)
    if now == tip:
        return f"{info.branch} is at {tip[:10]}"
    if place:
        assert now, "what is checked out is there"
        return (
            f"{info.branch} is checked out in {place}, so it stays at {now[:10]}; what is kept is {tip[:10]}"
        )
    ref = f"refs/heads/{info.branch}"
    invalid = next((r.number for r in read_revoked(journal) if now in r.commits), None)
    said = f"autoresearch: step back, experiment {invalid} is invalid" if invalid else "autoresearch"
    repository.update_refs({ref: tip}, expected={ref: now}, message=said)
    return f"{info.branch} is at {tip[:10]}"


def _tip(journal: Journal) -> str:
    """What was kept and recorded last, or what the search began with."""
    kept = journal.kept()
    return kept[-1].commit if kept else journal.info().base_commit


def check_branch(journal: Journal, repository: Repository) -> tuple[str | None, str]:
    """The commit of a search's branch, None if there is no such branch; and where it is checked out, or "".

    Raises:
        UserError: If that is no commit of the search, since the next change that is kept would lose it.
    """
    info = journal.info()
    now, place = repository.branch(info.branch)
    revoked = (commit for r in read_revoked(journal) for commit in r.commits)
    if now and now not in (info.base_commit, *(e.commit for e in journal.experiments()), *revoked):
        raise UserError(
            f"Somebody moved the branch {info.branch} to {now[:10]}; the search would overwrite that.",
            f"Keep that work on another branch (git branch mine {now[:10]}), delete {info.branch}, and run "
            f"the same command again: the search puts its branch back.",
        )
    return now, place


def forget(repository: Repository, name: str) -> str:
    """Remove the branch and the candidates of a search from git, so that its name is free.

    Returns:
        What was removed, in words; empty if there was nothing.

    Raises:
        UserError: If the branch is checked out, or holds commits of somebody else; nothing is removed then.
    """
    branch = f"autoresearch/{name}"
    ref, own = f"refs/heads/{branch}", repository.refs(f"refs/autoresearch/{name}")
    now, place = repository.branch(branch)
    if place:
        raise UserError(f"{branch} is checked out in {place}.", "Switch to another branch there.")
    if now and now not in own.values() and not repository.holders(now) - {ref, *own}:
        raise UserError(
            f"The branch {branch} holds commits that are not of the search.",
            f"Keep them on another branch (git branch mine {branch}), or remove it: git branch -D {branch}",
        )
    gone = {**own, **({ref: now} if now else {})}
    repository.update_refs(dict.fromkeys(gone), expected=gone)
    parts = [f"the branch {branch}"] if now else []
    parts += [f"{count(len(own), 'ref')} below refs/autoresearch/{name}"] if own else []
    return " and ".join(parts)


def _remake(repository: Repository, e: Experiment, editable: tuple[str, ...], info: SearchInfo) -> bool:
    """Make the commit of an experiment; whether it is the one that the journal names."""
    assert e.proposal, "the baseline is the user's own commit"
    try:
        sources = apply(repository.sources(e.parent, editable), e.proposal.edits)
        message = commit_message(replace(e, verdict=None), info.metric)
        made = repository.commit(e.parent, sources, message, e.created)
    except (Refused, UserError):
        return False
    if made == e.commit:  # before the verdict
        return True
    return (
        repository.reword(made, e.parent, commit_message(e, info.metric, info.trust), e.created) == e.commit
    )
