import fcntl
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from autoresearch.errors import UserError
from autoresearch.record.lease import Lease, lock


def test_a_second_runner_is_told_who_runs_the_search_and_gets_code_4(tmp_path: Path) -> None:
    with lock(tmp_path / "x") as lease:
        with (
            pytest.raises(UserError, match=f"already running .process {os.getpid()} on {lease.host}") as told,
            lock(tmp_path / "x"),
        ):
            pass
        assert told.value.code == 4
        assert Lease.from_json((tmp_path / "x" / "lock").read_text()) == lease
    with lock(tmp_path / "x"):
        pass


def test_what_a_dead_process_or_another_boot_left_is_taken_over(tmp_path: Path) -> None:
    ours = Lease.ours()
    assert not ours.dead
    gone = replace(ours, pid=2**22 + 1)
    reused = replace(ours, born=ours.born - 1000)
    rebooted = replace(ours, boot="another")
    elsewhere = replace(gone, host="another")
    assert gone.dead and reused.dead and rebooted.dead and not elsewhere.dead
    for left in (json.dumps(asdict(gone)), json.dumps(asdict(elsewhere)), "", "12", "{"):
        (tmp_path / "lock").write_text(left)
        with lock(tmp_path) as lease:
            assert lease.pid == os.getpid()


def test_a_lock_kept_alive_by_the_child_of_a_dead_owner_is_taken_over(tmp_path: Path) -> None:
    holder = (tmp_path / "lock").open("a+")  # stands for such a child
    fcntl.flock(holder, fcntl.LOCK_EX)
    holder.write(replace(Lease.ours(), pid=2**22 + 1).to_json())
    holder.flush()
    with lock(tmp_path) as lease:
        assert lease.pid == os.getpid()
        with pytest.raises(UserError, match="already running"), lock(tmp_path):
            pass
    holder.close()
