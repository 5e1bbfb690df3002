"""The command line: `autoresearch COMMAND [key=value ...]`.

Settings are Hydra overrides in any order; `name=` chooses the search (without it: for `run` the last one if
it has not ended, else a new one; for everything else the one that runs, or was begun last). Exit codes: 0
done; 1 a defect of ours; 2 something in the request; 3 something on this machine; 4 the search is already
running; 130 stopped by Ctrl-C. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import errno
import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from autoresearch import __version__
from autoresearch.cli import (
    chain,
    compare,
    contest,
    finish,
    guards,
    inspect,
    learn,
    maintain,
    mcp,
    run,
    setup,
    steer,
    swarm,
    watch,
)
from autoresearch.errors import UserError

COMMANDS = (
    setup.init,
    setup.check,
    run.run,
    setup.prepare,
    compare.list_searches,
    inspect.status,
    watch.watch,
    inspect.log,
    inspect.show,
    inspect.diff,
    inspect.report,
    compare.compare,
    contest.contest,
    contest.evolve,
    compare.importance,
    learn.lessons,
    learn.scout,
    setup.config,
    finish.claim,
    finish.audit,
    finish.ablate,
    finish.transfer,
    finish.sample,
    finish.reproduce,
    finish.branch,
    finish.export,
    finish.open_exported,
    chain.verify_chain,
    inspect.ui,
    steer.attempt,
    steer.note,
    steer.pause,
    steer.resume,
    steer.stop,
    mcp.mcp,
    swarm.serve,
    swarm.verify,
    swarm.join,
    swarm.submit,
    maintain.trace,
    maintain.sync,
    maintain.clean,
    setup.doctor,
)

NAMES = {compare.list_searches: "list", steer.attempt: "try", finish.open_exported: "import"}
"""Commands whose names are words of Python's."""


class Commands(TyperGroup):
    """Tells of each command in a whole sentence, where the parent class cuts it to a line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            rows = [(name, self.commands[name].get_short_help_str(500)) for name in self.list_commands(ctx)]
            formatter.write_dl(rows)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich would take longer to load than all else
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Machine-learning research while you sleep, with results you can believe.",
)
for command in COMMANDS:
    app.command(NAMES.get(command))(command)
app.add_typer(steer.idea, name="idea", cls=Commands)
app.add_typer(guards.guards, name="guards", cls=Commands)
app.add_typer(contest.brief, name="brief", cls=Commands)
app.add_typer(swarm.track, name="track", cls=Commands)


def main() -> None:
    """Entry point: errors a person can mend become one clear message."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a folder may have a name that is no text
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        from autoresearch.text import visible

        typer.echo(f"error: {visible(str(error))}", err=True)
        if error.hint:
            typer.echo(f"  {visible(error.hint)}", err=True)
        sys.exit(error.code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        typer.echo(f"error: {error.strerror}: {error.filename or 'the runs folder'}", err=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "Make room there" if full else "Make it writable, or choose another folder with runs="
        typer.echo(f"  {what}, then run the same command again: nothing is lost.", err=True)
        sys.exit(3)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
