"""Prepare and look at data from the command line.

    python -m nanomodel.data prepare --cache runs/cache --corpus sotu --vocab 2048 --validation-tokens 200000
    python -m nanomodel.data prepare --corpus prepared --path copied/sotu-2048-... (others as above)
    python -m nanomodel.data show runs/cache/sotu-2048-...

`prepare` prints one line of JSON on stdout; progress and errors go to stderr. Options not
given come from `configs/data/CORPUS.yaml`. Exit codes: 0 done, 2 an error in the request, 3 in this
machine or its connection, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from nanomodel.data import DataError, DataSpec, Prepared, open_cache, prepare
from nanomodel.data.progress import shown
from nanomodel.data.spec import COPIED

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "data"
NEEDED = ("corpus", "vocab", "validation_tokens")
"""Options without a default: they depend on the scale of a search."""
_KINDS: dict[str, type] = {"int": int, "float": float}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "show":
            _show(open_cache(options.path))
            return 0
        with shown() as report:
            copied = options.corpus == COPIED
            data = open_copy(options) if copied else prepare(_spec(options), options.cache, report)
        print(json.dumps({"path": str(data.path), **data.meta}))
        return 0
    except DataError as error:
        print(f"error: {error.message}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
        return 3 if error.machine else 2
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: the data cannot be written: {error.strerror or error}{where}", file=sys.stderr)
        print("Free some space or mend the permissions, then start again.", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("Stopped. Nothing is left half done; start again when you like.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nanomodel.data", description="Prepare and look at data.")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("prepare", help="make the prepared data of a corpus, or find it")
    make.add_argument("--cache", type=Path, required=True, help="folder that holds prepared data")
    for field in fields(DataSpec):
        kind = _KINDS.get(str(field.type), str)
        flag, needed = f"--{field.name.replace('_', '-')}", field.name in NEEDED
        make.add_argument(flag, type=kind, required=needed, metavar=kind.__name__.upper())
    show = commands.add_parser("show", help="describe prepared data, and check that it is whole")
    show.add_argument("path", type=Path)
    return parser


def _spec(options: argparse.Namespace) -> DataSpec:
    names = [f.name for f in fields(DataSpec)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return DataSpec.from_dict({**_defaults(options.corpus), **given})


def _defaults(corpus: str) -> dict[str, Any]:
    path = CONFIGS / f"{corpus}.yaml"
    if not path.is_file():
        return {}  # a user who gives every option needs no file
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(values, dict)
    # What depends on the scale of a search, such as the vocabulary, has no default here.
    return {str(name): value for name, value in values.items() if not str(value).startswith("${")}


def open_copy(options: argparse.Namespace) -> Prepared:
    """The prepared folder at `--path`, if it is complete and has the right vocabulary."""
    if not options.path:
        raise DataError("No path is set.", "Set data.path to a folder of prepared data that was copied here.")
    data = open_cache(Path(options.path).expanduser().resolve())
    if data.vocab != options.vocab:
        raise DataError(
            f"The data in {data.path} has a vocabulary of {data.vocab}, not {options.vocab}.",
            "Copy one that was prepared for this budget, or set budget.vocab.",
        )
    data.verify()  # a copy may have been cut short
    return data


def _show(data: Prepared) -> None:
    data.verify()
    print(f"{data.path}: corpus {data.corpus}, vocabulary {data.vocab}, whole")
    print(f"{'split':<12}{'documents':>12}{'tokens':>15}{'bytes':>16}{'bytes/token':>13}")
    for split, about in data.meta["splits"].items():
        ratio = about["bytes"] / about["tokens"]
        counts = f"{about['documents']:>12,}{about['tokens']:>15,}{about['bytes']:>16,}"
        print(f"{split:<12}{counts}{ratio:>13.2f}")
    print(f"near-duplicates: {data.meta['near_duplicates']:,} documents, never in two splits")
    print(f"training text begins: {data.decode(data.tokens('train')[:100])!r}")


if __name__ == "__main__":
    sys.exit(main())
