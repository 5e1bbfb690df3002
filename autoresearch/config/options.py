"""The options of a search, as frozen models: names, types and ranges. Their defaults stand in `configs/`."""

from __future__ import annotations

import re
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from autoresearch.config import roles
from autoresearch.config.compose import suggest
from autoresearch.config.files import folders, user_files
from autoresearch.errors import UserError

OF_KEEPS = ("metrics", "action", "devise")
"""Options of the guards that look at what is to be kept; they change no score, and may change."""

STORES = (
    "http",
    "https",
    "sqlite",
    "postgresql",
    "mysql",
    "mssql",
    "file",
    "databricks",
    "databricks-uc",
    "uc",
)
"""How addresses of MLflow stores begin."""


class Options(BaseModel):
    """Values of one configuration group: typed, frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Executor(Options):
    """Where trials run; a remote executor has further options, which it checks itself."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    device: Literal["auto", "cpu", "cuda"]
    threads: int | None = Field(ge=1)
    workers: int | None = Field(ge=1, le=64)
    devices: tuple[int, ...] | None
    weights_gb: float = Field(gt=0)
    probes: int = Field(ge=8)
    standby: bool
    score_alone: bool | None


class SandboxLimits(Options):
    """How much of the host one trial may use; the values of `execute.sandbox.Limits`."""

    memory_gb: float = Field(gt=0, le=100_000)
    processes: int = Field(ge=4, le=1_000_000)
    file_gb: float = Field(gt=0, le=100_000)
    open_files: int = Field(ge=16, le=1_000_000)


def _store(uri: str) -> str:
    """An address that MLflow can open; a host that does not answer now may answer later."""
    scheme = uri.partition(":")[0].partition("+")[0] if re.match(r"[\w+.-]+:", uri) else "file"
    if scheme in STORES or scheme in entry_points(group="mlflow.tracking_store").names:
        return uri
    raise ValueError(f"is no address of an MLflow store: those begin with {', '.join(STORES)}")


class Tracking(Options):
    """Which MLflow store mirrors the journal."""

    enabled: bool
    uri: Annotated[str, AfterValidator(_store)] | None
    experiment: str


class Guards(Options):
    """Largest multiples of the baseline's; None switches a guard off. And further metrics of what is kept."""

    memory_mb: float | None = Field(ge=1)
    weights_mb: float | None = Field(ge=1)
    score_seconds: float | None = Field(ge=1)
    startup_cpu_seconds: float | None = Field(ge=1)
    metrics: tuple[str, ...]
    action: Literal["flag", "hold", "refuse"]
    devise: bool

    @property
    def limits(self) -> dict[str, float | None]:
        """The multiples alone."""
        return {k: v for k, v in self.model_dump().items() if k not in OF_KEEPS}


class Serve(Options):
    """What `autoresearch serve` takes from strangers; see `swarm.queue`.

    Attributes:
        newcomers: Share of the verifier's runs for contributors without a record, while others wait.
        waiting: Contributions of one contributor that may wait; four times as many of one with a record.
        daily: Contributions of one contributor within a day; four times as many of one with a record.
        queue: Contributions that may wait in all, before only contributors with a record may add to them.
        kilobytes: Largest request.
        requests: Requests of one network in a minute.
        seconds: How long a request may take to arrive.
        recheck: Share of the verifier's turns in which an old link of the chain is measured again.
        search: Whether the verifier also tries proposals of the track's own proposer, in runs that no known
            contributor waits for; None: if that costs no money.
    """

    newcomers: float = Field(ge=0, le=1)
    waiting: int = Field(ge=1)
    daily: int = Field(ge=1)
    queue: int = Field(ge=1)
    kilobytes: int = Field(ge=4, le=100_000)
    requests: int = Field(ge=1)
    seconds: float = Field(gt=0)
    recheck: float = Field(ge=0, le=1)
    search: bool | None


class Config(Options):
    """One search, fully specified."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    brief: str
    ideas: str | None
    experiments: int = Field(ge=0)
    minutes: float | None = Field(gt=0)
    lookahead: int = Field(ge=0, le=16)
    keep_logs: int = Field(ge=0)
    alarm: int | None = Field(ge=2)
    baselines: int = Field(ge=2, le=32)
    earlier_noise: bool
    seed: int = Field(ge=0)
    claim: int = Field(ge=0, le=64)
    diagnoses: int = Field(ge=0, le=100)
    early_stopping: bool
    lessons: bool
    transfer_every: int | None = Field(ge=1)
    transfer_scales: tuple[Annotated[float, Field(gt=1, le=1000)], ...]
    transfer_data: tuple[str, ...]
    guards: Guards
    serve: Serve
    runs: Annotated[Path, AfterValidator(Path.expanduser)]
    task: dict[str, Any]
    budget: dict[str, Any]
    executor: Executor
    tracking: Tracking
    data: dict[str, Any]
    proposer: dict[str, Any]
    judge: dict[str, Any]
    sandbox: dict[str, Any]
    choices: dict[str, str]
    overrides: tuple[str, ...]

    @cached_property
    def idea_paths(self) -> list[Path]:
        """The patches to try before anything else, in order.

        Raises:
            UserError: If there is none where there should be some.
        """
        if not self.ideas:
            return []
        places = [Path(self.ideas).expanduser().resolve(), *(place / self.ideas for place in folders())]
        found = next((found for place in places if (found := sorted(place.glob("*.patch")))), None)
        if not found:
            raise UserError(
                f"There are no patches in {places[0]}.",
                "ideas= names a folder of NAME.patch files: a line, and a diff below it. `shelf` is shipped.",
            )
        return found

    def read_brief(self) -> str:
        """The text of the brief.

        Raises:
            UserError: If there is none, it is no text, or one of its roles does not exist.
        """
        path = self.brief_path
        try:
            text = roles.read(path)
        except UnicodeDecodeError:
            raise UserError(
                f"The brief {path} is not UTF-8 text.",
                "Save it as UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW (or -f UTF-16).",
            ) from None
        except OSError as error:
            raise UserError(f"The brief {path} cannot be read: {error.strerror}.", "Mend that.") from None
        if not text.strip() or "\0" in text:
            what = "holds NUL bytes" if text.strip() else "is empty"
            raise UserError(f"The brief {path} {what}.", "Write in it, in Markdown, what to improve and how.")
        roles.split(text)
        return text

    @cached_property
    def brief_path(self) -> Path:
        """The Markdown file of the brief, or the folder of a brief with roles (`autoresearch.config.roles`).

        Raises:
            UserError: If there is none.
        """
        if self.brief.endswith(".md"):
            path, own = Path(self.brief).expanduser().resolve(), user_files().values
            if not path.is_file() and own and (own.parent / self.brief).is_file():
                return own.parent / self.brief  # as the file that names it means it
            if not path.is_file():
                raise UserError(
                    f"There is no brief at {path}.", "Give a Markdown file, or the name of a shipped brief."
                )
            return path
        for folder in folders():
            path = folder / "briefs" / self.brief
            if path.with_name(f"{path.name}.md").is_file() or roles.is_folder(path):
                return path if roles.is_folder(path) else path.with_name(f"{path.name}.md")
        if roles.is_folder(path := Path(self.brief).expanduser().resolve()):
            return path
        found = (path for folder in folders() for path in (folder / "briefs").glob("*"))
        names = sorted({p.stem for p in found if p.suffix == ".md" or roles.is_folder(p)})
        raise UserError(f"There is no brief {self.brief!r}.", suggest(self.brief, names, "briefs"))
