import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from autoresearch.errors import UserError
from autoresearch.store.lock import Lease, lock, other_runners


def test_a_second_process_is_told_who_runs_the_search_and_gets_code_4(tmp_path: Path) -> None:
    with lock(tmp_path / "x") as held:
        with (
            pytest.raises(UserError, match=f"already running .process {os.getpid()} on {held.host}") as told,
            lock(tmp_path / "x"),
        ):
            pass
        assert told.value.code == 4
        assert Lease.from_json((tmp_path / "x" / "lock").read_text()) == held, "the loser must not erase it"
    with lock(tmp_path / "x"):
        pass


def test_a_process_is_dead_only_if_that_is_certain(tmp_path: Path) -> None:
    ours = Lease.ours()
    assert not ours.dead
    gone = replace(ours, pid=2**22 + 1)
    reused = replace(ours, born=ours.born - 1000)
    rebooted = replace(ours, boot="another")
    elsewhere = replace(gone, host="another")
    assert gone.dead and reused.dead and rebooted.dead and not elsewhere.dead
    container = replace(gone, space="pid:[1]")  # of the same host name, where process 1 may well run
    assert ours.space and not container.dead and not replace(container, boot="another").dead


def test_what_the_file_says_blocks_nobody_without_the_kernel_s_lock(tmp_path: Path) -> None:
    gone = replace(Lease.ours(), pid=2**22 + 1)
    old = {key: value for key, value in asdict(gone).items() if key != "space"}
    elsewhere = asdict(replace(gone, host="another"))
    for left in (json.dumps(asdict(gone)), json.dumps(old), json.dumps(elsewhere), "", "12", "{"):
        (tmp_path / "lock").write_text(left)
        with lock(tmp_path) as held:
            assert Lease.from_json((tmp_path / "lock").read_text()) == held and held.pid == os.getpid()


def test_a_lock_ends_with_its_process_even_if_a_forked_child_goes_on(tmp_path: Path) -> None:
    told, tell = os.pipe()
    runner = os.fork()
    if runner == 0:
        with lock(tmp_path):
            child = os.fork()
            if child:
                os.write(tell, f"{child}\n".encode())
            time.sleep(60)
        os._exit(0)
    child = int(os.read(told, 20))
    try:
        with pytest.raises(UserError, match=f"process {runner} on"), lock(tmp_path):
            pass
        os.kill(runner, signal.SIGKILL)
        os.waitpid(runner, 0)
        os.kill(child, 0)  # it is there
        with lock(tmp_path) as held:
            assert held.pid == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)


def test_of_several_at_once_one_gets_it(tmp_path: Path) -> None:
    def rival(_: int) -> bool:
        try:
            with lock(tmp_path):
                time.sleep(0.5)
                return True
        except UserError:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(rival, range(4))) == 1


def test_a_search_may_be_removed_while_its_lock_is_held(tmp_path: Path) -> None:
    with lock(tmp_path / "x"):
        (tmp_path / "x" / "lock").unlink()
    with lock(tmp_path / "x"):
        pass


def test_a_search_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError), lock(tmp_path / "runs" / "x"):
        raise UserError("the brief is empty")
    assert not list(tmp_path.iterdir())
    (tmp_path / "runs" / "cache").mkdir(parents=True)
    with pytest.raises(UserError), lock(tmp_path / "runs" / "x"):
        raise UserError("the brief is empty")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["cache"]
    with lock(tmp_path / "runs" / "x"):
        (tmp_path / "runs" / "x" / "journal.db").touch()
    assert (tmp_path / "runs" / "x" / "lock").exists()


WAITS = """
import sys
from pathlib import Path
from autoresearch.store.lock import lock
with lock(Path(sys.argv[-1])):
    print("holds", flush=True)
    input()
print("waits", flush=True)
input()
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["verify", "join"])
def test_who_waits_for_work_is_no_neighbour(command: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", WAITS, "autoresearch", command, str(tmp_path / "x")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        assert process.pid in other_runners()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "waits\n"
        assert process.pid not in other_runners()
        process.stdin.write("\n")
        process.stdin.close()
