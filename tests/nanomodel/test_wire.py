import mmap
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanomodel.wire import (
    MAX_BYTES,
    Closed,
    Timeout,
    Wire,
    WireError,
    create_memory,
    map_memory,
    pair,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=6))
def test_messages_arrive_as_they_were_sent(message):
    one, other = pair()
    one.send(message)
    one.send({"next": 1})
    assert other.recv(1.0) == (message, [])
    assert other.recv(1.0) == ({"next": 1}, [])
    one.close()
    other.close()


def test_descriptors_travel_and_are_not_inheritable(tmp_path):
    (tmp_path / "file").write_text("inside")
    one, other = pair()
    with (tmp_path / "file").open() as file:
        one.send({}, [file.fileno()])
    _, (fd,) = other.recv(1.0)
    assert not os.get_inheritable(fd)
    assert os.read(fd, 100) == b"inside"
    os.close(fd)


@pytest.mark.parametrize(
    "junk", [b"no json", b"[1, 2]", b"3", b"{" * 5000, b"x" * (MAX_BYTES + 100), b"\xff\xfe"]
)
def test_junk_is_refused_and_its_descriptors_are_closed(junk):
    raw, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wire = Wire(end)
    before = open_descriptors()
    socket.send_fds(raw, [junk], [raw.fileno()])
    with pytest.raises(WireError):
        wire.recv(1.0)
    assert open_descriptors() == before


def test_more_descriptors_than_allowed_are_refused():
    raw, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wire = Wire(end)
    before = open_descriptors()
    socket.send_fds(raw, [b"{}"], [raw.fileno()] * 20)
    with pytest.raises(WireError):
        wire.recv(1.0)
    assert open_descriptors() == before


def test_silence_and_death_are_told_apart():
    one, other = pair()
    with pytest.raises(Timeout):
        one.recv(0.01)
    other.close()
    with pytest.raises(Closed):
        one.recv(1.0)
    with pytest.raises(Closed):
        one.send({})


def test_a_peer_that_does_not_read_does_not_hold_the_sender_up():
    one, _other = pair()
    with pytest.raises(Timeout):
        for _ in range(100_000):
            one.send({"text": "x" * 1000}, timeout=0.01)


def test_shared_memory_cannot_be_shrunk_under_a_reader():
    fd = create_memory(10_000)
    with map_memory(fd, 10_000) as memory:
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 20_000)
        mmap.mmap(fd, 10_000)[5:8] = b"abc"
        assert memory[5:8] == b"abc"
    with pytest.raises(WireError):
        map_memory(fd, 20_000)
