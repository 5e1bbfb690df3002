"""How to go on with a search, wherever it lies."""

from pathlib import Path

from autoresearch.store.searches import PLAN, go_on


def test_the_command_that_goes_on_names_another_folder_and_the_search_that_an_inner_one_belongs_to(
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    assert go_on(runs / "night") == "autoresearch run name=night"
    assert go_on(tmp_path / "mine/night") == f"autoresearch run name=night runs={tmp_path}/mine"
    for outer, file in (("evolved", "journal.db"), ("race", PLAN)):
        (runs / outer / "inner").mkdir(parents=True)
        (runs / outer / file).touch()
    assert go_on(runs / "evolved/inner/0a1b-3") == "autoresearch run name=evolved"
    assert (
        go_on(runs / "race/inner/0a1b-3")
        == go_on(runs / "race/inner/0a1b-4")
        == ("autoresearch contest name=race")
    )
    assert go_on(tmp_path / "inner/night") == f"autoresearch run name=night runs={tmp_path}/inner"
