"""Reads sources of ideas as text, in pieces: papers (PDF, text, from arXiv) and repositories (path or URL).

A source is hostile until proven otherwise. A PDF is read by another process with limits on time and memory. A
repository is cloned without its settings and hooks, and only read by git, with limits: nothing of it is run.
The text that comes out is data. Not covered: fetching papers (`web`), what a model makes of it (`ideas`).
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.propose.scout import web
from autoresearch.text import visible

PIECE, MOST_PIECES = 12_000, 6
"""Characters of a piece, and pieces of a source at most."""

MOST_BYTES = 30_000_000
SECONDS, MEMORY = 60, 1 << 30
"""Limits of the process that reads a PDF."""

ARXIV = re.compile(
    r"(?:arxiv:|https://arxiv\.org/(?:abs|pdf)/)?(\d{4}\.\d{4,5}(?:v\d+)?)(?:\.pdf)?", re.IGNORECASE
)
SEARCH = "arxiv:"
"""Before words, which arXiv is to search for."""
TEXTS = (".txt", ".md", ".tex", ".rst")
FILES = re.compile(r"(^|/)(readme|changelog|results?|experiments?|log)[^/]*\.(md|txt|rst|tsv|csv)$", re.I)
CODE = re.compile(r"(^|/)(train|model|optim)[^/]*\.py$", re.I)
GAINS = re.compile(r"\b(improv|faster|speed|gain|better|lower|reduc|loss|perplexity|\d+(\.\d+)?%)", re.I)
MOST_COMMITS = 400
GIT_SECONDS, GIT_BYTES, GIT_MEMORY = 300, 500_000_000, 4 << 30
"""Limits of a git command: on its time, on each file that it writes, its answer too, and on its memory."""

NETWORK = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "GIT_SSL_CAINFO", "SSL_CERT_FILE")
"""What git is told of the network of this machine."""

_READ_PDF = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
import pypdf
for page in pypdf.PdfReader(sys.argv[1]).pages[:200]:
    sys.stdout.buffer.write((page.extract_text() + "\\n").encode("utf-8", "replace"))
"""


@dataclass(frozen=True)
class Source:
    """Text of one source.

    Attributes:
        name: As a person gave it.
        kind: "paper" or "repository".
        pieces: Its text, without control characters, in order.
        left_out: Characters that are in no piece.
    """

    name: str
    kind: str
    pieces: tuple[str, ...]
    left_out: int = 0


def read_source(name: str) -> Source:
    """Read a source.

    Args:
        name: A PDF or a text, or the https address of a PDF; an arXiv id, or "arxiv:" and words to search
            for; a folder with a repository or with texts, or the https address of a repository.

    Raises:
        UserError: If it cannot be read.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return _cut(name, "paper", _paper(path))
    if found := ARXIV.fullmatch(name):
        return _cut(name, "paper", _fetched(web.arxiv_pdf(found[1], MOST_BYTES)))
    if name.lower().startswith(SEARCH):
        return _cut(name, "paper", web.arxiv_search(name[len(SEARCH) :].strip(), MOST_BYTES))
    if name.startswith("https://") and name.partition("?")[0].lower().endswith(".pdf"):
        return _cut(name, "paper", _fetched(web.pdf(name, MOST_BYTES)))
    if path.is_dir() or name.startswith("https://") or name.endswith(".git"):
        return _cut(name, "repository", _repository(name, path))
    raise UserError(
        f"There is no source {name}.",
        "Give a PDF or text file, an arXiv id such as 2203.15556, a folder or a URL.",
    )


def _cut(name: str, kind: str, text: str) -> Source:
    """A text in pieces, which end between paragraphs where they can."""
    text = visible(text).strip()
    if not text:
        raise UserError(
            f"There is no text in {name}.", "A scanned PDF needs recognition of characters first."
        )
    pieces, at = list[str](), 0
    while at < len(text) and len(pieces) < MOST_PIECES:
        end = min(len(text), at + PIECE)
        if end < len(text):
            end = (
                max(text.rfind("\n\n", at + PIECE // 2, end), text.rfind("\n", at + PIECE // 2, end), 0)
                or end
            )
        pieces.append(text[at:end])
        at = end
    return Source(name, kind, tuple(pieces), max(0, len(text) - at))


def _paper(path: Path) -> str:
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path} has more than {MOST_BYTES // 10**6} MB.", "Give an excerpt.")
    if path.suffix.lower() != ".pdf":
        return path.read_text("utf-8", "replace")
    if find_spec("pypdf") is None:
        raise UserError(
            f"Reading {path.name} needs the package pypdf.",
            "pip install 'autoresearch[papers]', or give the text.",
        )
    program = _READ_PDF.format(memory=MEMORY, seconds=SECONDS)
    command = [sys.executable, "-I", "-c", program, str(path.resolve())]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=2 * SECONDS, env={"PATH": "/usr/bin:/bin"}
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{path} could not be read as a PDF in {2 * SECONDS} s.", "Give its text.") from None
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it ended"]
        raise UserError(f"{path} could not be read as a PDF: {visible(last[0])[:200]}.", "Give its text.")
    return done.stdout.decode("utf-8", "replace")


def _fetched(paper: bytes) -> str:
    """The text of a PDF that was fetched."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "paper.pdf"
        path.write_bytes(paper)
        return _paper(path)


def _repository(name: str, path: Path) -> str:
    """The files of a repository that matter, and the commit messages that claim gains."""
    if path.is_dir() and not (path / ".git").exists() and not (path / "HEAD").exists():
        texts = sorted(p for p in path.rglob("*") if p.suffix in TEXTS and p.is_file() and not p.is_symlink())
        return "\n\n".join(f"== {p.relative_to(path)}\n{p.read_text('utf-8', 'replace')}" for p in texts[:50])
    with _cloned(str(path.resolve()) if path.is_dir() else name) as clone:
        log = _git(clone, "log", f"-{MOST_COMMITS}", "--format=%h %s%n%b%x00", "HEAD")
        claims = [message.strip() for message in log.split("\0") if GAINS.search(message)]
        names = _git(clone, "ls-tree", "-r", "--name-only", "-z", "HEAD").split("\0")
        wanted = [n for n in names if FILES.search(n)][:10] + [n for n in names if CODE.search(n)][:5]
        files = [f"== {n}\n{_git(clone, 'show', f'HEAD:{n}')[:PIECE]}" for n in wanted]
    parts = ["== Commit messages that claim gains", *claims] if claims else []
    return "\n\n".join([*parts, *files])


@contextmanager
def _cloned(address: str) -> Iterator[Path]:
    """A bare clone, which has none of the source's settings and hooks."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone.git"
        only = "file" if Path(address).is_absolute() else "https"
        settings = ("protocol.allow=never", f"protocol.{only}.allow=always", "core.hooksPath=/dev/null")
        # A redirect could lead into the network of this machine.
        words = [word for setting in (*settings, "http.followRedirects=false") for word in ("-c", setting)]
        depth = [f"--depth={MOST_COMMITS}"] if only == "https" else ["--no-hardlinks"]
        _git(None, *words, "clone", "--bare", "-q", *depth, "--", address, str(clone))
        yield clone


def _git(folder: Path | None, *words: str) -> str:
    place = ["--git-dir", str(folder)] if folder else []
    environment = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": "/nonexistent",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    } | {key: os.environ[key] for key in NETWORK if key in os.environ}
    command = ["git", "--no-pager", *place, *words]
    with tempfile.TemporaryFile() as answer:
        try:
            done = subprocess.run(
                command,
                stdout=answer,
                stderr=subprocess.PIPE,
                timeout=GIT_SECONDS,
                env=environment,
                preexec_fn=_limited,
            )
        except subprocess.TimeoutExpired:
            raise UserError(
                f"The repository could not be fetched in {GIT_SECONDS} s.", "Clone it yourself.", code=3
            ) from None
        if done.returncode:
            said = visible(done.stderr.decode("utf-8", "replace")).strip()[-300:] or "it is too large"
            raise UserError(f"The repository could not be read: {said}", "Clone it yourself.", code=3)
        answer.seek(0)
        return answer.read().decode("utf-8", "replace")


def _limited() -> None:
    """Limits what git may write and use: a small pack can unpack to anything."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (GIT_BYTES, GIT_BYTES))
    resource.setrlimit(resource.RLIMIT_AS, (GIT_MEMORY, GIT_MEMORY))
