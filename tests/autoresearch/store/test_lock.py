import contextlib
import fcntl
import json
import os
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TextIO

import pytest

from autoresearch.errors import UserError
from autoresearch.store import lock as lease
from autoresearch.store.lock import Lease, lock


def test_a_second_runner_is_told_who_runs_the_search_and_gets_code_4(tmp_path: Path) -> None:
    with lock(tmp_path / "x") as held:
        with (
            pytest.raises(UserError, match=f"already running .process {os.getpid()} on {held.host}") as told,
            lock(tmp_path / "x"),
        ):
            pass
        assert told.value.code == 4
        assert Lease.from_json((tmp_path / "x" / "lock").read_text()) == held
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
    container = replace(gone, space="pid:[1]")  # one of the same name as this, and its process 1 lives there
    assert ours.space and not container.dead and not replace(container, boot="another").dead
    old = {key: value for key, value in asdict(gone).items() if key != "space"}
    for left in (json.dumps(asdict(gone)), json.dumps(old), json.dumps(asdict(elsewhere)), "", "12", "{"):
        (tmp_path / "lock").write_text(left)
        with lock(tmp_path) as held:
            assert held.pid == os.getpid()


def test_a_lock_kept_alive_by_the_child_of_a_dead_owner_is_taken_over(tmp_path: Path) -> None:
    holder = (tmp_path / "lock").open("a+")  # stands for such a child
    fcntl.flock(holder, fcntl.LOCK_EX)
    holder.write(replace(Lease.ours(), pid=2**22 + 1).to_json())
    holder.flush()
    with lock(tmp_path) as held:
        assert held.pid == os.getpid()
        with pytest.raises(UserError, match="already running"), lock(tmp_path):
            pass
    holder.close()


def test_of_several_that_take_a_dead_owner_s_lock_over_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = (tmp_path / "lock").open("a+")
    fcntl.flock(holder, fcntl.LOCK_EX)
    holder.write(replace(Lease.ours(), pid=2**22 + 1).to_json())
    holder.flush()
    same, together, running, most = lease._same, threading.Barrier(3), [0], [0]

    def slow(path: Path, file: TextIO) -> bool:
        found = same(path, file)
        time.sleep(0.1)  # between the look and what follows from it, rivals get their turn
        return found

    def rival() -> None:
        together.wait()
        with contextlib.suppress(UserError), lock(tmp_path):
            running[0] += 1
            most[0] = max(most[0], running[0])
            time.sleep(0.5)
            running[0] -= 1

    monkeypatch.setattr(lease, "_same", slow)
    rivals = [threading.Thread(target=rival) for _ in range(3)]
    for thread in rivals:
        thread.start()
    for thread in rivals:
        thread.join()
    assert most == [1]
    holder.close()
