"""Small JSON messages and file descriptors over a Unix socket, and memory that two processes share.

Runner, harness, scorer and server all speak protocol 1: each message is one JSON object, sent over
SOCK_SEQPACKET, which keeps messages apart and tells when the peer is dead. File descriptors travel with it.

Invariant: no message can harm the receiver. A message that is too long, not JSON, or not an object raises
`WireError`, and its descriptors are closed; no later child inherits a descriptor; shared memory is sealed, so
a peer cannot shrink it while another process reads it. The receiver checks what a message *means*. This
module needs no torch. Where the system has no SOCK_SEQPACKET (macOS), it uses datagrams, and the caller must
notice the death of the peer by other means.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

PROTOCOL = 1
WEIGHTS = "weights.pt"
"""The file of weights that a submitting script leaves in its working folder."""
MAX_BYTES = 60_000
MAX_FDS = 8

Message = dict[str, Any]


class WireError(Exception):
    """The peer sent something that is not a message."""


class Closed(WireError):
    """The peer is gone."""


class Timeout(WireError):
    """The peer said nothing for too long."""


class Wire:
    """One end of a conversation."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)

    @classmethod
    def from_fd(cls, fd: int) -> Wire:
        """Take over an inherited or received descriptor."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """The descriptor, for `select` and for passing on."""
        return self._socket.fileno()

    def send(self, message: Message, fds: Sequence[int] = (), timeout: float | None = 30.0) -> None:
        """Send one message.

        Args:
            message: A JSON object of at most `MAX_BYTES` as text.
            fds: Descriptors the peer gets copies of.
            timeout: Seconds to wait while the peer reads nothing; None waits forever.

        Raises:
            Closed: If the peer is gone.
            Timeout: If it does not read.
        """
        data = json.dumps(message).encode()
        if len(data) > MAX_BYTES:
            raise ValueError(f"message of {len(data)} bytes; at most {MAX_BYTES} fit")
        self._wait(select.POLLOUT, timeout)
        try:
            socket.send_fds(self._socket, [data], list(fds))
        except BlockingIOError:
            raise Timeout("the peer does not read") from None
        except OSError as error:
            raise Closed(f"the peer is gone ({error.strerror})") from None

    def recv(self, timeout: float | None = None) -> tuple[Message, list[int]]:
        """Wait for one message.

        Args:
            timeout: Seconds to wait; None waits forever.

        Returns:
            The object, and the descriptors that came with it: the caller owns them.

        Raises:
            Closed: If the peer is gone.
            Timeout: If nothing comes in time.
            WireError: If the data is not a message.
        """
        self._wait(select.POLLIN, timeout)
        try:
            data, fds, flags, _ = socket.recv_fds(self._socket, MAX_BYTES + 1, MAX_FDS)
        except BlockingIOError:
            raise Timeout("nothing came") from None
        except OSError as error:
            raise Closed(f"the peer is gone ({error.strerror})") from None
        for fd in fds:
            os.set_inheritable(fd, False)
        try:
            if not data:
                raise Closed("the peer is gone")
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise WireError("a message that is too long")
            message = json.loads(data)
            if not isinstance(message, dict):
                raise WireError("a message that is not an object")
        except (ValueError, RecursionError):
            close_all(fds)
            raise WireError("a message that is not JSON") from None
        except WireError:
            close_all(fds)
            raise
        return message, fds

    def release(self) -> int:
        """Give up the descriptor without closing it, so that another module can continue the conversation."""
        return self._socket.detach()

    def close(self) -> None:
        """End the conversation; the peer notices."""
        self._socket.close()

    def _wait(self, event: int, timeout: float | None) -> None:
        poll = select.poll()
        poll.register(self._socket, event)
        if not poll.poll(None if timeout is None else max(0, int(1000 * timeout))):
            raise Timeout(f"nothing for {timeout:g} s")


def pair() -> tuple[Wire, Wire]:
    """Two connected ends."""
    kind = socket.SOCK_SEQPACKET if hasattr(os, "memfd_create") else socket.SOCK_DGRAM
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    return Wire(one), Wire(other)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


def create_memory(size: int) -> int:
    """A descriptor of `size` zero bytes that lie in no folder; its length is sealed."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    import fcntl

    fd = os.memfd_create("nanomodel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def map_memory(fd: int, size: int) -> mmap.mmap:
    """Map `size` bytes of shared memory for reading and writing.

    Raises:
        WireError: If the descriptor holds fewer bytes.
    """
    if os.fstat(fd).st_size < size:
        raise WireError(f"shared memory of {os.fstat(fd).st_size} bytes where {size} are needed")
    return mmap.mmap(fd, size)
