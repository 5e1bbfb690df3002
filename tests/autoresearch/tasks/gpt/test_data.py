"""The training data between runners: what one does to it is seen, undone, and held against nobody else."""

import os
from pathlib import Path

import pytest

from autoresearch.errors import UserError
from autoresearch.tasks.gpt.data import TrainingData
from autoresearch.tasks.gpt.task import refuse_visible
from tests.support import toy


@pytest.fixture
def cache(tmp_path):
    return toy.write_cache(tmp_path / "cache", train=1_000)


@pytest.fixture
def data(cache):
    data = TrainingData(cache)
    yield data
    data.close()


@pytest.fixture
def other(cache):
    other = TrainingData(cache)
    yield other
    other.close()


@pytest.mark.parametrize(
    "deed",
    [
        lambda fd: os.fchmod(fd, 0o777),
        lambda fd: os.utime(fd, (1, 1)),
        lambda fd: os.setxattr(fd, "user.note", b"what I have learnt"),
    ],
    ids=["mode", "times", "attributes"],
)
def test_two_runners_on_the_same_data_do_not_blame_each_other_s_candidates(cache, data, other, deed):
    before = (cache / "train.bin").stat()
    with data.all_tokens() as descriptor:
        try:
            deed(descriptor)
        except OSError as error:
            pytest.skip(f"this file system has none: {error}")
    assert data.was_touched()
    assert not other.was_touched(), "what was done is undone; that alone is no offence"
    assert not data.was_touched() and not other.was_touched()
    after = (cache / "train.bin").stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert os.listxattr(cache / "train.bin") == []


def test_nothing_is_written_to_files_that_are_as_they_were(cache, data):
    changed = (cache / "validation.bin").stat().st_ctime_ns
    (cache / "train.bin").chmod(0o600)
    data.was_touched()
    assert (cache / "validation.bin").stat().st_ctime_ns == changed


def test_trials_do_not_share_a_position(data):
    with data.all_tokens() as one, data.all_tokens() as two:
        os.lseek(one, 100, os.SEEK_SET)
        assert os.lseek(two, 0, os.SEEK_CUR) == 0


def test_closed_data_is_refused_and_closing_twice_closes_nobody_s_file(cache):
    data = TrainingData(cache)
    number = data.descriptor
    data.close()
    stranger = os.open(os.devnull, os.O_RDONLY)
    assert stranger == number
    data.close()
    os.fstat(stranger)
    with pytest.raises(OSError, match="was closed"), data.all_tokens():
        pass
    os.close(stranger)


def test_data_that_was_touched_or_changed_is_noticed(tmp_path):
    data = TrainingData(toy.write_cache(tmp_path / "cache", train=1_000))
    file = tmp_path / "cache/train.bin"
    mode = file.stat().st_mode
    assert not data.was_touched()
    os.fchmod(data.descriptor, 0)
    assert data.was_touched()
    assert file.stat().st_mode == mode
    assert not data.was_touched()
    with file.open("r+b") as writing:
        writing.write(b"\7")
    with pytest.raises(UserError, match="changed while a trial ran"):
        data.was_touched()
    data.close()


@pytest.mark.parametrize("inside", ["texts.txt", "texts/*.jsonl", "[ab]/*"])
def test_a_corpus_where_every_jail_can_read_is_refused(inside: str, tmp_path: Path) -> None:
    library = Path(os.__file__).parent
    with pytest.raises(UserError, match="Candidates could read"):
        refuse_visible(f"{library}/{inside}")
    (tmp_path / "link").symlink_to(library)
    with pytest.raises(UserError, match="Candidates could read"):
        refuse_visible(str(tmp_path / "link" / inside))
    refuse_visible(str(tmp_path / inside))
