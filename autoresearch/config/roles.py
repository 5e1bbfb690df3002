"""A brief with roles: what more than one model, or the same model in several turns, does for each proposal.

A brief may be a folder. `brief.md` is read by all, and each role has a file with instructions of its own:

    scout.md      lists ideas before the proposer is asked, who reads them
    proposer.md   more instructions for the proposer; it needs no call of its own
    critic.md     reads each proposal, and may send it back once, with reasons

A role's file may begin with front matter that names its model: `model: claude-opus-5-5`. Everywhere else a
brief is one text: the files of the folder, each of a role after a line that names the role (`MARK`). A single
file that is written so is the same brief. Not covered: how roles are carried out (`propose.llm.roles`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoresearch.errors import UserError

BRIEF, ROLES = "brief", ("scout", "proposer", "critic")
MARK = re.compile(r"^<!-- role: ([\w-]+) -->[ \t]*\n", re.MULTILINE)
FRONT = re.compile(r"\A\s*---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
MODEL = re.compile(r"^model:[ \t]*(\S+)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Role:
    """The instructions of one role.

    Attributes:
        name: One of `ROLES`.
        words: Its instructions.
        model: The model that carries it out, of the same provider; empty: the one that proposes.
    """

    name: str
    words: str
    model: str = ""


def joined(texts: Mapping[str, str]) -> str:
    """The brief as one text.

    Args:
        texts: "brief" and names of roles -> text.

    Raises:
        UserError: If a name is no role.
    """
    if unknown := sorted(texts.keys() - {BRIEF, *ROLES}):
        raise UserError(
            f"A brief has no role {unknown[0]!r}.", f"Beside brief.md there may be: {', '.join(ROLES)} (.md)."
        )
    parts = [texts[BRIEF].strip("\n")]
    parts += [f"<!-- role: {name} -->\n{texts[name].strip()}" for name in ROLES if name in texts]
    return "\n\n".join(parts) + "\n"


def together(texts: Mapping[str, str]) -> str:
    """The brief of files by path: of the only one, or of `brief.md` and roles beside it."""
    if len(texts) == 1:
        return next(iter(texts.values()))
    return joined({Path(path).stem: text for path, text in texts.items()})


def split(text: str) -> tuple[str, dict[str, Role]]:
    """What is for all, and the roles by name.

    Raises:
        UserError: If it names a role that does not exist, or one twice.
    """
    common, *rest = MARK.split(text)
    found: dict[str, Role] = {}
    for name, words in zip(rest[::2], rest[1::2], strict=True):
        if name not in ROLES or name in found:
            what = "names twice the role" if name in found else "has no role"
            raise UserError(f"A brief {what} {name!r}.", f"There are: {', '.join(ROLES)}.")
        front = FRONT.match(words)
        model = MODEL.search(front[1]) if front else None
        found[name] = Role(name, FRONT.sub("", words).strip(), model[1] if model else "")
    return common, found


def for_proposer(text: str) -> str:
    """What the proposer follows: the part for all, and what is for the proposer alone."""
    try:
        common, found = split(text)
    except UserError:  # a person or a model is changing it now: it is followed as it stands
        return text
    own = found.get("proposer")
    return f"{common.rstrip()}\n\n{own.words}\n" if own and own.words else common


def is_folder(path: Path) -> bool:
    """Whether a folder holds one brief."""
    return (path / f"{BRIEF}.md").is_file()


def files(path: Path) -> list[Path]:
    """The files of a brief: itself, or those of its folder."""
    return sorted(path.glob("*.md")) if path.is_dir() else [path]


def read(path: Path) -> str:
    """The text of a brief, of a file or a folder.

    Raises:
        OSError: If a file cannot be read.
        UnicodeDecodeError: If one is not UTF-8.
        UserError: If the folder has a file of another name than that of a role.
    """
    if not path.is_dir():
        return path.read_text(encoding="utf-8-sig")
    return joined({p.stem: p.read_text(encoding="utf-8-sig") for p in files(path)})
