"""Does a search keep what is nothing? The real task, candidates that change the program but not what it does.

    python -m benchmarks.no_change
    python -m benchmarks.no_change --candidates 40 --set budget=cpu seed=2

A search (real training, sandbox, scorer, judge) over candidates whose syntax tree differs from the starting
script's and whose training does not: an unused value, a renamed variable, definitions in another order. The
starting script is handicapped in one knob, and the last candidate takes the handicap away: that one has to be
kept, and nothing else. Complexity has no price here. Exits with 1 if it went otherwise.

Planted gains of one, two and three noise units, and an older judge beside today's: `benchmarks.planted`.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoresearch.edit.knobs import read_values, set_knobs
from autoresearch.edit.rules import check
from autoresearch.errors import Refused
from autoresearch.types import Edit

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = "nanomodel/train.py"
NAME = "no-change"


def handicap(source: str) -> Edit:
    """The learning rate of the output projection divided by three, on a CPU."""
    rate = read_values(source, 0)["HEAD_LR"]
    assert isinstance(rate, float), f"{SCRIPT} has no HEAD_LR to handicap"
    [edit] = set_knobs(SCRIPT, source, {"HEAD_LR": rate / 3}, 0)
    return edit


def no_changes(source: str) -> Iterator[tuple[str, str]]:
    """Programs that do what `source` does: (what was done to it, text), kinds taken in turn."""
    kinds = [unused_values(source), renamed_variables(source), swapped_definitions(source)]
    while kinds:
        for kind in list(kinds):
            try:
                yield next(kind)
            except StopIteration:
                kinds.remove(kind)


def unused_values(source: str) -> Iterator[tuple[str, str]]:
    """A value that nothing reads, at the start of each function."""
    lines = source.splitlines(keepends=True)
    for function in _functions(source):
        body = [s for s in function.body if not _is_text(s)]
        if not body:
            continue
        at, indent = body[0].lineno - 1, " " * body[0].col_offset
        text = [*lines[:at], f"{indent}unused_value = {at}\n", *lines[at:]]
        yield f"an unused value in {function.name}, line {at + 1}", "".join(text)


def renamed_variables(source: str) -> Iterator[tuple[str, str]]:
    """Another name for each local variable."""
    for function in _functions(source):
        inner = [n for n in ast.walk(function) if n is not function and isinstance(n, ast.FunctionDef)]
        if inner:
            continue  # a name may belong to the inner function
        names = [n for n in ast.walk(function) if isinstance(n, ast.Name)]
        arguments = {a.arg for a in function.args.args}
        for name in sorted({n.id for n in names if isinstance(n.ctx, ast.Store)} - arguments):
            lines = source.splitlines(keepends=True)
            for node in sorted((n for n in names if n.id == name), key=_place, reverse=True):
                # Offsets of the tree are in bytes.
                raw = lines[node.lineno - 1].encode()
                end = node.col_offset + len(name.encode())
                lines[node.lineno - 1] = (
                    raw[: node.col_offset] + f"{name}_renamed".encode() + raw[end:]
                ).decode()
            yield f"{name} renamed in {function.name}", "".join(lines)


def swapped_definitions(source: str) -> Iterator[tuple[str, str]]:
    """Neighbouring functions and classes in the other order."""
    lines = source.splitlines(keepends=True)
    body = ast.parse(source).body
    for first, second in itertools.pairwise(body):
        if not all(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in (first, second)):
            continue
        assert first.end_lineno and second.end_lineno
        a, b, c, d = (first.lineno - 1, first.end_lineno, second.lineno - 1, second.end_lineno)
        text = [*lines[:a], *lines[c:d], *lines[b:c], *lines[a:b], *lines[d:]]
        yield f"definitions at lines {a + 1} and {c + 1} in the other order", "".join(text)


def proposals(source: str, count: int, taken: Edit) -> list[dict[str, Any]]:
    """`count` candidates that change nothing, and one that takes the handicap away."""
    texts = [(what, text) for what, text in no_changes(source) if allowed(source, text)][:count]
    if len(texts) < count:
        raise SystemExit(f"There are only {len(texts)} ways to change nothing in {SCRIPT}.")
    empty = [_proposal(what, "", text) for what, text in texts]
    return [*empty, _proposal("the handicap taken away", taken.replace, taken.search)]


def allowed(source: str, text: str) -> bool:
    """Whether the search would train it: a definition moved before what it needs is refused."""
    try:
        check({SCRIPT: source}, {SCRIPT: text}, [SCRIPT])
    except Refused:
        return False
    return True


def main() -> None:
    """Run the search, and look at what it kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--candidates", type=int, default=40, help="that change nothing (default: 40)")
    parser.add_argument("--set", nargs="*", default=["budget=smoke"], help="settings of the search")
    options = parser.parse_args()
    sys.exit(judged(search(options)))


def search(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run a search in a clone of this repository, whose script has the handicap; its experiments."""
    with tempfile.TemporaryDirectory(prefix="no-change-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        script = clone / SCRIPT
        source = script.read_text()
        given = handicap(source)
        source = source.replace(given.search, given.replace)
        script.write_text(source)
        identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
        subprocess.run(["git", *identity, "commit", "-qam", "handicap"], cwd=clone, check=True)
        recorded = Path(folder) / "proposals.jsonl"
        recorded.write_text(
            "".join(json.dumps(p) + "\n" for p in proposals(source, options.candidates, given))
        )
        fixed = [f"name={NAME}", f"experiments={options.candidates + 1}", "proposer=replay", "claim=0"]
        fixed += [f"proposer.path={recorded}", "judge.price=0", "tracking=none", "budget.slowdown=null"]
        # The working folder is the clone, so its package is what is searched; the loop is the installed one.
        command = [sys.executable, "-m", "autoresearch"]
        subprocess.run([*command, "run", "--view", "plain", *options.set, *fixed], cwd=clone, check=True)
        printed = subprocess.run(
            [*command, "log", "--json", f"name={NAME}"], cwd=clone, check=True, capture_output=True
        )
    return [json.loads(line) for line in printed.stdout.splitlines()]


def judged(rows: list[dict[str, Any]]) -> int:
    """Print what came of it; 0 if all is as it should be."""
    candidates = rows[1:]
    false = [row["number"] for row in candidates[:-1] if row["verdict"] == "keep"]
    broken = [row["number"] for row in candidates if row["verdict"] not in ("keep", "discard")]
    planted = candidates[-1]
    print(f"candidates that change nothing   {len(candidates) - 1}")
    print(f"of which kept                    {len(false)} {false or ''}")
    print(f"of which failed                  {len(broken)} {broken or ''}")
    print(f"trials                           {sum(row['trials'] for row in candidates)}")
    reason = f"{planted['verdict']} after {planted['trials']} trainings: {planted['reason']}"
    print(f"the real improvement             {reason}")
    return int(bool(false or broken or planted["verdict"] != "keep"))


def _proposal(hypothesis: str, search: str, replace: str) -> dict[str, Any]:
    edit = {"path": SCRIPT, "search": search, "replace": replace}
    return {"hypothesis": hypothesis, "category": "other", "edits": [edit]}


def _functions(source: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _place(node: ast.Name) -> tuple[int, int]:
    return node.lineno, node.col_offset


if __name__ == "__main__":
    main()
