"""Rooms import only rooms below them, nanomodel stands alone, and framework rooms name no task.

Imports inside functions count: a cycle that is hidden in a function is still a cycle.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent

LAYERS = (
    ("types", "errors", "clock", "registry", "text", "config"),
    ("edit",),
    ("judge",),
    ("store",),
    ("execute",),
    ("tasks",),
    ("propose",),
    ("report",),
    ("tracking",),
    ("search",),
    ("finish",),
    ("contest",),
    ("api",),
    ("swarm",),
    ("cli",),
    ("__main__",),
    ("testing",),
)
"""Lowest first. A module imports its own room and lower layers; modules of the lowest layer each other."""

TASK_WORDS = re.compile(r"bpb|bits per byte|\bGPT\b|torch|nanomodel|training tokens", re.IGNORECASE)
"""What framework rooms must not say: it belongs to one task."""

OLD_JOURNALS = ("autoresearch/store/database.py", 'Metric("val_bpb"')
"""The one exception: journals of the first two versions hold scores of this metric, and do not say so."""

FRAMEWORK = ("search", "propose", "edit", "judge", "store", "report", "tracking", "execute")


@cache
def modules(package: str) -> dict[str, Path]:
    """Dotted name -> file of every module of a package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def import_statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Every import in a file, also in functions."""
    found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in found if isinstance(node, (ast.Import, ast.ImportFrom))]


def imports(path: Path, known: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in a file; of names in packages, the submodule."""
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if full in known else node.module


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            for module in graph[waiting.pop()] - found:
                found.add(module)
                waiting.append(module)
        return found

    far = {module: reached(module) for module in graph}
    groups = {
        tuple(sorted(m for m in far[module] if module in far[m])) for module in graph if module in far[module]
    }
    return [list(group) for group in sorted(groups)]


def graph(package: str) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports."""
    known = modules(package)
    return {
        name: {m for _, m in imports(path, known) if m in known and m != name} for name, path in known.items()
    }


def room(module: str) -> str:
    """The room of a module: `search` for `autoresearch.search.loop`."""
    return module.split(".")[1] if "." in module else ""


def test_nanomodel_has_no_import_cycle() -> None:
    assert cycles(graph("nanomodel")) == []


def test_the_task_s_script_leads_to_no_part_of_the_scorer() -> None:
    """The model server loads `nanomodel.train` by name, so what that imports must not lead back to it."""
    known = graph("nanomodel")
    known["nanomodel.scoring.server"].add("nanomodel.train")
    assert cycles(known) == []


def test_nanomodel_imports_nothing_of_autoresearch() -> None:
    known = modules("nanomodel")
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in known.values()
        for line, module in imports(path, known)
        if module.split(".")[0] == "autoresearch"
    ]
    assert not wrong, "\n".join(wrong)


def test_every_room_imports_only_lower_rooms() -> None:
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    known, wrong = modules("autoresearch"), []
    for name, path in known.items():
        here = room(name)
        if not here:
            continue
        if here not in level:
            wrong.append(f"{path.relative_to(ROOT)}: the room {here} has no layer; see LAYERS")
            continue
        for line, module in imports(path, known):
            there = room(module) if module.split(".")[0] == "autoresearch" else ""
            if there and there != here and level.get(there, 99) >= max(level[here], 1):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_rooms_have_no_import_cycle() -> None:
    rooms: dict[str, set[str]] = {}
    for name, targets in graph("autoresearch").items():
        rooms.setdefault(room(name), set()).update(room(target) for target in targets if room(target))
    for name, targets in rooms.items():
        targets.discard(name)
    rooms.pop("", None)
    assert cycles(rooms) == []


def test_only_the_gpt_task_imports_nanomodel() -> None:
    known = modules("autoresearch")
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for name, path in known.items()
        if not name.startswith("autoresearch.tasks.gpt")
        for line, module in imports(path, known)
        if module.split(".")[0] == "nanomodel"
    ]
    assert not wrong, "\n".join(wrong)


def test_framework_rooms_name_no_task() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:90]}"
        for folder in FRAMEWORK
        for path in sorted((ROOT / "autoresearch" / folder).rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if TASK_WORDS.search(line) and not _tells_of_old_journals(path, line)
    ]
    assert not wrong, "\n".join(wrong)


def _tells_of_old_journals(path: Path, line: str) -> bool:
    return path.relative_to(ROOT).as_posix() == OLD_JOURNALS[0] and OLD_JOURNALS[1] in line


def test_a_cycle_is_found_and_what_only_leads_to_it_is_not_in_it() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [["a", "b", "c"]]
