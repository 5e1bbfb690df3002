"""Configuration: Hydra groups in `configs/`, composed from `key=value` overrides, checked, frozen.

YAML holds every default; the models here hold types and ranges only. The last of these layers wins: the
shipped `configs/`, the user's own files (`autoresearch.config.files`), the command line. Where neither of the
last two says so, a GPU chooses the budget and the corpus, and an API key the proposer. A key or a choice that
does not exist is refused with the nearest one that does. Groups whose options belong to one room (task,
budget, data, proposer, judge, sandbox) stay plain mappings: that room's constructor checks them (by `parse`,
or itself).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from importlib.metadata import entry_points
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from autoresearch.config import roles
from autoresearch.config.compose import compose_tree, suggest
from autoresearch.config.explain import comment
from autoresearch.config.files import BRIEFS as BRIEFS
from autoresearch.config.files import CONFIGS as CONFIGS
from autoresearch.config.files import folders, overrides_of, replaced, user_files
from autoresearch.config.profiles import GPU_PROFILE, LARGE, is_profile
from autoresearch.errors import UserError

M = TypeVar("M", bound=BaseModel)

DEV = Path("/dev")
FIXED = ("task", "budget", "data", "judge", "guards", "baselines", "seed")
"""Keys that decide what a score means: they cannot change while a search goes on."""
LIMITS = {
    "tokens": ("startup_seconds", "max_seconds", "slowdown", "score_seconds"),
    "seconds": ("startup_seconds", "score_seconds"),
    "own": ("max_seconds", "slowdown", "score_seconds", "total_dollars"),
}
"""Kind of budget -> options of it and of the guards that limit time but change no score: they may change."""

OF_KEEPS = ("metrics", "action", "devise")
"""Options of the guards that look at what is to be kept; they change no score, and may change."""

OF_TASKS = ("budget", "data")
"""Groups of which a task may have a choice of its own, named like itself: configs/budget/TASK.yaml."""

RESERVED = ("cache", "mlflow", "readme.md", "swarm")
"""What else lies in the folder of searches: no search can have such a name."""

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

WANTED = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_": "a text",
    "path_": "a path",
    "tuple_": "a list in brackets, such as [a,b]",
    "list_": "a list in brackets, such as [a,b]",
    "dict_": "a mapping in braces, such as {{a: 1}}",
    "mapping_": "a mapping in braces, such as {{a: 1}}",
    "model_": "a mapping in braces, such as {{a: 1}}",
    "literal_error": "{expected}",
    "greater_than_equal": "{ge:g} or more",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "{le:g} or less",
    "less_than": "less than {lt:g}",
    "too_short": "a list with {min_length} or more",
}
"""What is wrong with a value, as pydantic calls it -> what is wanted, in words."""


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
    """

    newcomers: float = Field(ge=0, le=1)
    waiting: int = Field(ge=1)
    daily: int = Field(ge=1)
    queue: int = Field(ge=1)
    kilobytes: int = Field(ge=4, le=100_000)
    requests: int = Field(ge=1)
    seconds: float = Field(gt=0)
    recheck: float = Field(ge=0, le=1)


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


def load(
    overrides: Sequence[str], environment: Mapping[str, str] | None = None, *, own_file: bool = True
) -> Config:
    """Compose and check a configuration.

    Args:
        overrides: Hydra overrides such as `budget=smoke` or `proposer.repairs=1`; later ones win.
        environment: Process environment; decides the defaults of `proposer` and `budget`.
        own_file: Whether the user's `autoresearch.yaml` counts. What a search was begun with is among its
            recorded overrides; what the file says now need not be the same.

    Raises:
        UserError: For an unknown key or choice, a wrong type, or a value out of range.
    """
    environment = os.environ if environment is None else environment
    path = user_files().values if own_file else None
    if path is None:
        return _load(overrides, environment)
    defaults = overrides_of(path, overrides)
    try:
        return _load([*defaults, *overrides], environment)
    except UserError as error:
        _load(overrides, environment)  # if this fails, too, the file is not to blame
        raise UserError(f"{path}: {error}", error.hint) from None


def _load(overrides: Sequence[str], environment: Mapping[str, str]) -> Config:
    given = {override.partition("=")[0].lstrip("+~") for override in overrides}
    automatic = []
    if "proposer" not in given and environment.get("ANTHROPIC_API_KEY"):
        one = any(key.startswith("proposer.") for key in given)  # settings of a single proposer
        automatic.append("proposer=anthropic" if one else "proposer=portfolio")
    task = next((o.partition("=")[2] for o in reversed(overrides) if o.startswith("task=")), "")
    own = [g for g in OF_TASKS if any((f / g / f"{task}.yaml").is_file() for f in folders())]
    automatic += [f"{group}={task}" for group in own if group not in given]
    if "executor.device=cpu" not in overrides and not own and has_gpu():
        budget = next((o.partition("=")[2] for o in reversed(overrides) if o.startswith("budget=")), "")
        automatic += [] if budget else [f"budget={GPU_PROFILE}"]
        if "data" not in given and (not budget or is_profile(budget)):
            automatic.append(f"data={LARGE}")
    tree, choices = deepcopy(compose_tree((*automatic, *overrides), tuple(folders())))
    name = str(tree["name"] if tree["name"] is not None else time.strftime("%b%d").lower())
    if name.lower() in RESERVED:
        raise UserError(
            f"name={name}: the folder of searches has something else of that name.", "Choose another."
        )
    if "limits" in tree["sandbox"]:
        limits = parse(SandboxLimits, tree["sandbox"]["limits"], "sandbox.limits")
        tree["sandbox"]["limits"] = limits.model_dump()
    try:
        # What the environment chose is recorded too: a search goes on as it was begun, on any machine.
        return Config(**{**tree, "name": name, "choices": choices, "overrides": (*automatic, *overrides)})
    except ValidationError as error:
        raise explained(error) from None


def parse(model: type[M], values: Mapping[str, Any], group: str) -> M:
    """Check the values of one group by a model of the room that they belong to.

    Args:
        model: Types and ranges.
        values: The group, such as `Config.budget`.
        group: Its name, for messages.

    Raises:
        UserError: If a value is missing, unknown, of a wrong type, or out of range.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explained(error, group) from None


def explained(error: ValidationError, group: str = "") -> UserError:
    """The first thing that is wrong with some values, as a sentence.

    Args:
        error: What pydantic says.
        group: Of the keys, such as "proposer".
    """
    first = error.errors()[0]
    key = ".".join(str(part) for part in ([group] if group else []) + list(first["loc"]))
    said = comment(key)
    hint = f"{key}: {said}" if said else f"See what is set: autoresearch config {key.partition('.')[0]}"
    kind, limits = first["type"], first.get("ctx", {})
    if kind == "value_error":
        return UserError(f"{key}={first['input']} {limits['error']}.", hint)
    if key == "name":
        hint = (
            "It names a branch and a folder: letters from a to z, also capitals, digits, dots, hyphens and "
            "underscores, 64 at most, with a letter or a digit first."
        )
        return UserError(f"name={first['input']} is no name for a search.", hint)
    if kind == "missing":
        return UserError(f"{key} is missing.", hint)
    if kind == "extra_forbidden":
        return UserError(f"There is no option {key}.", hint)
    words = next((words for known, words in WANTED.items() if kind.startswith(known)), "")
    wanted = words.format(**limits) if words else first["msg"].lower()
    return UserError(f"{key} must be {wanted}, not {_shown(first['input'])}.", hint)


def _shown(value: Any) -> str:
    """A value as a person writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def resume(recorded: Config, overrides: Sequence[str], *, scored: bool = True) -> Config:
    """The configuration of a search that goes on: as it was begun, plus new overrides.

    Nothing is chosen by what the environment or the machine shows now: neither a proposer that costs money
    nor a device on which scores mean something else.

    Args:
        recorded: As it was begun.
        overrides: New ones.
        scored: Whether it has a score. If not, budget and data may still change.

    Raises:
        UserError: If an override would change what a score means.
    """
    given = dict(override.partition("=")[::2] for override in overrides if override != "executor.device=auto")
    device = f"executor.device={given.get('executor.device', recorded.executor.device)}"
    new = [*(o for o in overrides if o.partition("=")[0] != "executor.device"), device]
    config = load(replaced(recorded.overrides, new, choices=recorded.choices), {})
    shared = ("threads", "workers") if recorded.budget.get("kind") == "seconds" else ()
    fixed = [key for key in FIXED if scored or key not in OF_TASKS]
    for key in (*fixed, *(f"executor.{name}" for name in ("device", *shared))):
        if _meaning(config, key) != _meaning(recorded, key):
            raise UserError(
                f"The search {recorded.name} was begun with another {key}: scores would not be comparable.",
                f"Leave {key} as it was, or start a search under another name.",
            )
    return config


def _meaning(config: Config, key: str) -> object:
    """The value of a key, without what changes no score."""
    value: Any = attrgetter(key)(config)
    if key not in ("budget", "guards"):
        return value
    options = value if key == "budget" else value.model_dump()
    free = (*LIMITS.get(config.budget.get("kind", ""), ()), *OF_KEEPS)
    return {name: option for name, option in options.items() if name not in free}


def has_gpu() -> bool:
    """Whether this machine has a GPU and shows it; asking torch would cost a second at every start."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    # Containers are given any of several: the first need not be nvidia0.
    return any(DEV.glob("nvidia[0-9]*")) or any((DEV / name).exists() for name in ("kfd", "dxg"))
