"""Files by the hash of their content: what a trial needs reaches a machine once, and is verified there.

A `Listing` names every file of a folder with its hash. A machine gets a listed file from its own store, from
the folder that was listed (there may be a shared file system), or in pieces from the executor. Each file is
hashed when it arrives, so no way needs to be trusted. Not covered: who sends what (`worker`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from filelock import FileLock

from autoresearch.errors import UserError
from autoresearch.store.files import remove_tree
from autoresearch.types import Plain

PIECE = 1 << 20
"""Bytes of a file that are sent or hashed at a time."""


@dataclass(frozen=True)
class File:
    """One file of a folder.

    Attributes:
        path: Relative to the folder, with slashes.
        hash: SHA-256 of the content, as hexadecimal digits; empty for a link.
        size: In bytes.
        executable: Whether it may be run.
        link: Where the link leads; empty for a file.
    """

    path: str
    hash: str
    size: int
    executable: bool = False
    link: str = ""


@dataclass(frozen=True)
class Listing(Plain):
    """The files of a folder, in order.

    Attributes:
        at: The folder that was listed; another machine may see it at the same place, or not.
        files: What is in it.
    """

    at: str = ""
    files: tuple[File, ...] = ()

    def __post_init__(self) -> None:
        for file in self.files:
            parts = PurePosixPath(file.path).parts
            if not parts or parts[0] == "/" or ".." in parts:
                raise ValueError(f"{file.path!r} leads out of the folder")

    @cached_property
    def key(self) -> str:
        """The same for two folders with the same content."""
        return hashlib.sha256(json.dumps([asdict(file) for file in self.files]).encode()).hexdigest()


def list_folder(folder: Path) -> Listing:
    """Hash all files below a folder; what is neither file nor link is left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found.append(File(name, "", 0, link=str(path.readlink())))
        elif path.is_file():
            about = path.stat()
            found.append(File(name, hash_file(path), about.st_size, bool(about.st_mode & 0o100)))
    return Listing(str(folder.resolve()), tuple(found))


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def pieces(path: Path) -> Iterator[tuple[bytes, bool]]:
    """The content of a file, piece by piece, each with whether it is the last."""
    with path.open("rb") as stream:
        piece = stream.read(PIECE)
        while following := stream.read(PIECE):
            yield piece, False
            piece = following
        yield piece, True


class FileStore:
    """The files of one machine, shared by the workers on it.

    Layout: `files/HASH` holds contents, `folders/KEY` whole folders that are only read, `arriving/` what is
    incomplete. Files are only added. Remove the whole folder to get rid of them.
    """

    def __init__(self, root: Path) -> None:
        """Open or make a store; other users of the machine cannot read it.

        Raises:
            UserError: If the folder cannot be written.
        """
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            root.chmod(0o700)
            for name in ("files", "folders", "arriving"):
                (root / name).mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"The folder {root} cannot be written: {error.strerror}.",
                "Choose another for what workers keep: executor.cache=FOLDER",
                code=3,
            ) from None

    @contextmanager
    def locked(self, listing: Listing) -> Iterator[None]:
        """Keep other workers of the machine from fetching the same at the same time."""
        with FileLock(self.root / "arriving" / f"{listing.key}.lock"):
            yield

    def missing(self, listing: Listing) -> list[File]:
        """The files that are not here, each content once; takes those that it can read where they were."""
        lacking = {file.hash: file for file in listing.files if file.hash and not self._file(file).exists()}
        return [file for file in lacking.values() if not (listing.at and self._take(file, listing.at))]

    def receive(self, file: File, piece: bytes, last: bool) -> None:
        """Add the next piece of a file.

        Raises:
            UserError: If the whole is not what was announced.
        """
        arriving = self.root / "arriving" / f"{file.hash}.{os.getpid()}"
        with arriving.open("ab") as stream:
            stream.write(piece)
        if last:
            self._keep(arriving, file)

    def original(self, listing: Listing) -> Path | None:
        """The folder that was listed, if it can be read here and holds the same."""
        folder = Path(listing.at)
        try:
            return folder if listing.at and list_folder(folder).key == listing.key else None
        except OSError:
            return None

    def folder(self, listing: Listing) -> Path:
        """A folder with the files of a listing, to be read only. Its files must be here.

        Raises:
            UserError: If the folder that was made earlier has been changed since.
        """
        folder = self.root / "folders" / listing.key
        if not folder.exists():
            partial = self.root / "arriving" / f"{listing.key}.{os.getpid()}"
            remove_tree(partial)
            self._write(listing, partial, share=True)
            partial.rename(folder)
        if list_folder(folder).key != listing.key:
            raise UserError(f"{folder} was changed after it was made.", f"Remove {self.root}.", code=3)
        return folder

    def copy(self, listing: Listing, folder: Path) -> None:
        """Write the files of a listing into a new folder. Its files must be here."""
        self._write(listing, folder, share=False)

    def _write(self, listing: Listing, folder: Path, *, share: bool) -> None:
        folder.mkdir(parents=True)
        for file in listing.files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.link:
                path.symlink_to(file.link)
            elif share and not file.executable:
                os.link(self._file(file), path)
            else:
                shutil.copyfile(self._file(file), path)
                path.chmod(0o755 if file.executable else 0o644)

    def _file(self, file: File) -> Path:
        return self.root / "files" / file.hash

    def _take(self, file: File, folder: str) -> bool:
        """Copy a file from the folder that was listed, if it is there and the same."""
        arriving = self.root / "arriving" / f"{file.hash}.{os.getpid()}"
        try:
            shutil.copyfile(Path(folder, file.path), arriving)
            self._keep(arriving, file)
        except (OSError, UserError):
            return False
        return True

    def _keep(self, arriving: Path, file: File) -> None:
        found = hash_file(arriving)
        if found != file.hash:
            arriving.unlink()
            raise UserError(f"{file.path} was damaged on its way to {self.root}.", "Try again.", code=3)
        arriving.chmod(0o444)
        arriving.replace(self._file(file))
