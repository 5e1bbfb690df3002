from pathlib import Path

import pytest

from autoresearch.errors import UserError
from tests.support.stub import make_repository, make_search

CRASHES: list[float | str] = [f"OTHER = 'crash {i}'" for i in range(6)]


def test_the_same_crash_again_and_again_stops_the_search_and_the_same_command_goes_on(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repo")
    search = make_search(repository, [1.5, *CRASHES, 0.2], "alarm=3")
    with pytest.raises(UserError, match=r"3 experiments .2 to 4. failed alike: out of memory") as alarm:
        search.run()
    assert alarm.value.code == 3
    assert search.journal.experiments()[-1].number == 4
    search.journal.close()
    again = make_search(repository, [1.5, *CRASHES, 0.2], "alarm=5")
    again.run()
    assert again.journal.experiments()[-1].kept


def test_other_causes_and_successes_in_between_are_no_alarm(tmp_path: Path) -> None:
    ideas: list[float | str] = [CRASHES[0], CRASHES[1], "OTHER = 'cheat'", CRASHES[2], 1.5, *CRASHES[3:5]]
    search = make_search(make_repository(tmp_path / "repo"), ideas, "alarm=3")
    search.run()
    assert len(search.journal.experiments()) == 8


def test_null_is_no_alarm(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), CRASHES, "alarm=null")
    search.run()
    assert len(search.journal.experiments()) == 7
