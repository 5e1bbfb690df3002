"""The page to read in the morning: `report.md`, the same as one self-contained HTML file, and its pictures.

Text that reaches the page cannot become markup: it is escaped in the Markdown, raw HTML is switched off in
the renderer, the template escapes what it is given, and a content security policy allows inline style and
nothing else, should all of these fail. Not covered: the words (`markdown`) and the drawing (`plot`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from autoresearch.report import markdown as words
from autoresearch.report.plots.findings import write_transfer_plot
from autoresearch.report.plots.progress import write_progress_plot, write_timeline_plot
from autoresearch.report.sections import guards, transfer
from autoresearch.report.sections.instructions import shares
from autoresearch.report.sections.stopping import stopping
from autoresearch.report.sections.worth import SourceWorth, comparisons, worth_of_sources
from autoresearch.report.summary import History, Summary, summarize
from autoresearch.report.timeline import TimeUse, time_use
from autoresearch.store.inbox import Inbox
from autoresearch.text import change_text, count, duration, one_line, scrub, tuning_text, tunings
from autoresearch.types import Experiment, in_order

if TYPE_CHECKING:
    from jinja2 import Environment
    from markdown_it.token import Token
    from markupsafe import Markup

    from autoresearch.store.database import Span
    from autoresearch.store.git.repository import Repository
    from autoresearch.store.journal import Journal

DIFF_LINES = 3000
"""A longer cumulative diff is cut, and the report says so. Those of single experiments share as many."""
VERDICTS = ("keep", "discard", "prune", "crash", "invalid", "open")
DIFF_CLASSES = {"diff ": "file", "+++": "file", "---": "file", "@@": "hunk", "+": "add", "-": "del"}
"""Start of a line of a diff -> class of the page's style; the first that fits."""


@dataclass(frozen=True)
class Report:
    """Where a report lies."""

    markdown: Path
    html: Path
    png: Path | None


def write_report(
    history: History, diff: str, folder: Path, spans: Iterable[Span] = (), sources: Sequence[SourceWorth] = ()
) -> Report:
    """Write `report.md`, `report.html` and the plots into a folder.

    Args:
        history: The search.
        diff: Unified diff from the base commit to the tip of the branch.
        folder: Created if it is missing.
        spans: What was done when.
        sources: What came of each source of ideas.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summary, use = summarize(history), time_use(spans)
    progress = write_progress_plot(history.experiments(), summary.info.name, summary.metric, folder)
    timeline = write_timeline_plot(use, summary.info.name, folder)
    ladders = [write_transfer_plot(record, summary.metric, folder) for record in summary.transfers]
    drawn = filter(None, (progress, timeline, *ladders))
    pictures = {png.name: svg.read_text(encoding="utf-8") for svg, png in drawn}
    png, time_png = (pair[1] if pair else None for pair in (progress, timeline))
    names = [pair[1].name if pair else None for pair in ladders]
    text = to_markdown(
        summary, diff, png.name if png else None, use, time_png.name if time_png else None, names, sources
    )
    text = scrub(text)
    report = Report(folder / "report.md", folder / "report.html", png)
    report.markdown.write_text(text, encoding="utf-8")
    title = f"{summary.info.branch}: {words.headline(summary)}"
    report.html.write_text(to_html(text, title, pictures), encoding="utf-8")
    return report


def to_markdown(
    s: Summary,
    diff: str,
    picture: str | None,
    use: TimeUse | None = None,
    time_picture: str | None = None,
    ladders: Sequence[str | None] = (),
    sources: Sequence[SourceWorth] = (),
) -> str:
    """The report as Markdown. Linear in the number of experiments.

    Args:
        s: The search.
        diff: Unified diff from the base commit to the tip of the branch.
        picture: Name of the progress plot's file, if there is one.
        use: How the time was used, if known.
        time_picture: Name of the timeline plot's file, if there is one.
        ladders: Name of the plot's file of each transfer, if there is one.
        sources: What came of each source of ideas.
    """
    templates = _templates(autoescape=False)
    templates.filters |= {
        "md": words.escape,
        "code": words.code,
        "fence": words.fence,
        "duration": duration,
        "dollars": "${:.2f}".format,
        "fixed": lambda value: "–" if value is None else f"{value:.2f}",
        "score": lambda value: "–" if value is None else s.metric.text(value),
        "signed": lambda value: f"{value:+.{s.metric.digits}f}",
    }
    lines = diff.splitlines()
    return templates.get_template("report.md").render(
        s=s,
        words=words,
        elsewhere=transfer,
        guards=guards,
        count=count,
        change_text=change_text,
        tunings=tunings,
        tuning_text=tuning_text,
        use=use or TimeUse(0.0, 0.0, 1, {}, {}),
        worth=[*_worth(s), *filter(None, [stopping(s.experiments).sentence(s.metric)])],
        kept=[e for e in in_order(s.experiments) if e.kept],
        tried=[e for e in s.experiments if e.number > 0],
        diffs=_diffs(s.experiments),
        diff="\n".join(lines[:DIFF_LINES]),
        diff_lines=len(lines),
        most_diff_lines=DIFF_LINES,
        picture=picture,
        time_picture=time_picture,
        ladders=ladders,
        sources=sources,
        instructions=shares(s.experiments, [s.info.brief_text, *(b.text for b in s.brief_changes)]),
        now=words.minute(time.time()),
    )


def _worth(s: Summary) -> list[str]:
    """What the controls of a portfolio say, if it was one."""
    proposer = s.info.config.get("proposer")
    price = proposer.get("device_hour") if isinstance(proposer, Mapping) else None
    known = comparisons(s.experiments, price) if isinstance(price, int | float) else []
    return [comparison.sentence(s.metric) for comparison in known]


def _diffs(experiments: Sequence[Experiment]) -> dict[int, str]:
    """The diffs by number of experiment; the kept ones first, then the latest, as far as `DIFF_LINES` go."""
    found: dict[int, str] = {}
    left = DIFF_LINES
    for e in sorted(experiments, key=lambda e: (e.kept, e.number), reverse=True):
        left -= len(e.diff.splitlines())
        if e.diff and left >= 0:
            found[e.number] = e.diff
    return found


@cache
def _templates(autoescape: bool) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("autoresearch.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def to_html(markdown: str, title: str, pictures: Mapping[str, str]) -> str:
    """One self-contained page.

    Args:
        markdown: The page; its images are replaced by `pictures`.
        title: Plain text.
        pictures: SVG by the name of the image it stands for; they are trusted.
    """
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    contents = _label(tokens)
    rules = cast("dict[str, Any]", parser.renderer.rules)  # type: ignore[attr-defined]
    rules["table_open"] = lambda *_: '<div class="table"><table>\n'
    rules["table_close"] = lambda *_: "</table></div>\n"
    rules["fence"] = lambda found, i, *_: _code_block(found[i])
    rules["image"] = lambda found, i, *_: _picture(
        pictures.get(str(found[i].attrGet("src")), ""), found[i].content
    )
    body = Markup("").join(
        Markup("<details><summary>{}</summary>\n{}</details>\n").format(summary, text) if summary else text
        for summary, part in _sections(tokens)
        for text in [Markup(parser.renderer.render(part, parser.options, {}))]
    )
    page = _templates(autoescape=True).get_template("report.html")
    return page.render(title=one_line(title), contents=contents, body=body)


def _label(tokens: Sequence[Token]) -> list[tuple[str, str]]:
    """Give headings an id, and each cell the title of its column and, for a verdict, its colour.

    Returns:
        The headings of the second level: id and text.
    """
    contents: list[tuple[str, str]] = []
    titles: list[str] = []
    column = 0
    for before, token in pairwise(tokens):
        if before.type == "heading_open" and before.tag == "h2":
            contents.append((f"part-{len(contents) + 1}", token.content))
            before.attrSet("id", contents[-1][0])
        elif before.type == "thead_open":
            titles = []
        elif before.type == "tr_open":
            column = 0
        elif before.type == "th_open":
            titles.append(token.content)
        elif before.type == "td_open":
            if all(titles):  # in a table of names and values, a cell needs no title
                before.attrSet("data-label", titles[column])
            column += 1
            if token.content in VERDICTS:
                before.attrSet("class", f"verdict {token.content}")
    return contents


def _sections(tokens: Sequence[Token]) -> Iterator[tuple[str, list[Token]]]:
    """The page in pieces: a heading of the third level begins a piece that is folded under its text."""
    summary, skipped = "", 0
    part: list[Token] = []
    for i, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag in ("h2", "h3"):
            yield summary, part
            summary, part = "", []
            if token.tag == "h3":
                summary, skipped = _text(tokens[i + 1]), i + 3
        if i >= skipped:
            part.append(token)
    yield summary, part


def _text(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ())


def _picture(svg: str, alt: str) -> str:
    """The picture without its XML prolog and white ground, its ink in the colours of the page."""
    from markupsafe import escape

    if not svg:
        return ""
    svg = svg[svg.index("<svg") :]
    for ink in ("#333333", "#000000"):
        svg = svg.replace(ink, "currentColor")
    for color, name in (("#666666", "--soft"), ("#ffffff", "--back"), ("#d9d9d9", "--line")):
        svg = svg.replace(color, f"var({name})")
    return f'<span class="plot" role="img" aria-label="{escape(alt)}">{svg}</span>'


def _code_block(token: Token) -> Markup:
    from markupsafe import Markup

    lines = token.content.rstrip("\n").split("\n")
    is_diff = token.info == "diff"
    shown = Markup("\n").join(_diff_line(line) if is_diff else line for line in lines)
    return Markup("<pre><code>{}\n</code></pre>\n").format(shown)


def _diff_line(line: str) -> str:
    from markupsafe import Markup

    name = next((name for start, name in DIFF_CLASSES.items() if line.startswith(start)), None)
    return Markup('<span class="{}">{}</span>').format(name, line) if name else line


def write_page(journal: Journal, repository: Repository) -> Report:
    """Write the report of a search into its folder."""
    diff, inbox = cumulative_diff(journal, repository), Inbox(journal.path.parent)
    sources = worth_of_sources(inbox.entries(), journal.experiments(), inbox.readings())
    return write_report(journal, diff, journal.path.parent / "report", journal.timeline(), sources)


def cumulative_diff(journal: Journal, repository: Repository) -> str:
    """All kept changes, as one unified diff; empty if there are none, or if git has lost them."""
    kept = [e.commit for e in in_order(journal.experiments()) if e.kept and repository.resolve(e.commit)]
    return repository.diff(journal.info().base_commit, kept[-1]) if kept else ""
