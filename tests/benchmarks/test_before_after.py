"""The yardstick of two versions: what it counts, and what it says."""

import math
import random
import sqlite3
from contextlib import closing
from pathlib import Path

from autoresearch.store.database import create
from benchmarks.before_after import (
    BUSY,
    FAILED,
    Searched,
    counted,
    interval,
    ratio,
    table,
    times,
    trained,
    values,
)

ADD_EXPERIMENT = "INSERT INTO experiments (number, state, parent, created) VALUES (?, 'x', '', 0)"
ADD_TRIAL = """INSERT INTO trials (experiment, arm, seed, commit_id, started, finished)
    VALUES (?, ?, 1, 'c', 0, ?)"""


def test_trainings_of_a_claim_are_not_the_searchs(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    assert trained(path) == 0, "no journal yet"
    with closing(sqlite3.connect(path)) as db:
        assert trained(path) == 0, "no tables yet"
        create(db)
        for number, (arm, finished) in enumerate((("screen", 1.0), ("screen", None), ("claim", 2.0)), 1):
            db.execute(ADD_EXPERIMENT, (number,))
            db.execute(ADD_TRIAL, (number, arm, finished))
        db.execute('UPDATE trials SET result = \'{"outcome": "crash"}\'')
        db.execute(ADD_TRIAL, (1, "confirm", 3.0))
        db.execute("UPDATE trials SET result = '{\"outcome\": \"ok\"}' WHERE arm = 'confirm'")
        db.execute(ADD_TRIAL, (1, "audit", 4.0))
        db.commit()
    assert trained(path) == 2 and counted(path, FAILED) == 1, "one failed, one gave a score"
    assert counted(path, BUSY) == 1 + 3 + 4, "a look at unseen text keeps the device busy, too"


def test_the_table_says_gain_for_each_training_and_hour_with_intervals_over_searches() -> None:
    found = {
        ("data=sotu", "old", 1): Searched(40, 0, 0.0, seconds=1800),
        ("data=sotu", "old", 2): Searched(40, 1, 0.02, (0.01, 0.03), seconds=1800),
        ("data=sotu", "new", 1): Searched(40, 2, 0.02, (0.01, 0.03), seconds=900),
        ("data=sotu", "new", 2): Searched(40, 1, 0.04, (0.03, 0.05), seconds=900),
        ("data=sotu", "new", 3): Searched(41, 1, None, failed=5, seconds=930),
    }
    text = table(found, ["data=sotu"])
    assert "| data=sotu | new, 1 | 40, 0 | 15.0 | 2 | 0.0200 [0.0100, 0.0300] |" in text
    assert "| data=sotu | new, 3 | 41, 5 | 15.5 | 1 | void |" in text
    assert "| data=sotu | new | 0.750 [" in text and "| 0.120 [" in text
    assert "| data=sotu | new / old | 3.00" in text and text.endswith(" | 6.00 |"), "half the time, too"
    assert "| all |" not in text
    both = table(
        found | {("data=file", "old", 1): Searched(40, 1, 0.01, seconds=360)}, ["data=sotu", "data=file"]
    )
    assert "| data=file | old | 0.250 | 0.100 |" in both, "one search has no interval"
    assert "| data=file | new | - | - |" in both and "| all | old |" in both
    assert interval([]) == "-" and times([]) == "-" and times([(0.0, 1.0)]) == "-"


def test_what_a_command_prints_is_read_whether_values_take_one_line_or_several() -> None:
    assert values('{"number": 1}\n{"number": 2}\n') == [{"number": 1}, {"number": 2}]
    assert values('{\n  "result": {"effect": 0.1}\n}\n') == [{"result": {"effect": 0.1}}]
    assert values("") == []


def test_the_interval_of_the_ratio_covers_it_in_95_of_100_cases() -> None:
    rng, covered, draws = random.Random(1), 0, 2000
    for _ in range(draws):
        shared = [rng.gauss(0, 0.1) for _ in range(4)]
        old = [1 + x + rng.gauss(0, 0.1) for x in shared]
        new = [3 + x + rng.gauss(0, 0.3) for x in shared]
        limits = ratio(old, new)
        covered += limits is not None and limits[0] <= 3 <= limits[1]
    assert abs(covered / draws - 0.95) < 0.015


def test_the_ratio_has_no_upper_end_where_the_old_version_may_gain_nothing() -> None:
    low, high = ratio([0.0, 0.0, 0.4], [1.0, 1.1, 1.2]) or (0.0, 0.0)
    assert 1 < low < 8 and high == math.inf
    assert ratio([0.0, 0.0, 0.0], [1.0, 1.1, 1.2]) == (math.inf, math.inf)
    assert ratio([1.0], [2.0]) is None and ratio([1.0, 1.1], [-2.0, 3.0]) is None
