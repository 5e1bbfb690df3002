"""A Markdown page as one self-contained HTML file: no script, no link to anything outside.

Owns the invariant that text which reaches a page cannot become markup: `escape` for text inside Markdown,
raw HTML switched off in the renderer, and a content security policy that allows inline style and nothing
else, should both fail.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from autoresearch.text import clean, one_line

if TYPE_CHECKING:
    from markdown_it.token import Token

_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&$!]")
_LINKS = re.compile(r"(?<=:)/(?=/)|(?<=\bwww)\.", re.IGNORECASE)
_CLASSES = ("keep", "discard", "prune", "crash", "invalid", "open")

CSS = """
:root {
  color-scheme: light dark;
  --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --back: #ffffff; --panel: #f6f8fa;
  --green: #00735a; --red: #b0451a; --blue: #0b62a8; --pink: #a34480;
}
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6edf3; --soft: #9aa4af; --line: #3d444d; --back: #0d1117; --panel: #161b22;
  --green: #3fc79f; --red: #ff9666; --blue: #6cb6ff; --pink: #e58ec4;
} }
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1.25rem 5rem; max-width: 70rem; background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .6rem; }
blockquote { margin: 1rem 0; padding: .6rem 1rem; background: var(--panel);
  border-left: 4px solid var(--green); }
blockquote p { margin: .2rem 0; font-size: 1.08rem; }
code, pre { font: .86em/1.45 ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; }
code { background: var(--panel); padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere; }
pre { background: var(--panel); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }
pre code { background: none; padding: 0; overflow-wrap: normal; font-size: 1em; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; min-width: 50%; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td { overflow-wrap: break-word; }
[style*="right"] { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.verdict { font-weight: 600; white-space: nowrap; }
.keep { color: var(--green); } .crash { color: var(--red); } .invalid { color: var(--pink); }
.prune { color: var(--blue); } .discard, .open { color: var(--soft); }
.plot svg { width: 100%; height: auto; color: var(--ink); }
.plot svg text { fill: currentColor; }
.add { color: var(--green); } .del { color: var(--red); } .hunk { color: var(--blue); }
.file { font-weight: 700; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  pre { white-space: pre-wrap; } h2 { break-after: avoid; } tr, .plot { break-inside: avoid; }
  .table { overflow: visible; }
}
"""


def escape(text: str, limit: int = 200) -> str:
    """Foreign text as one line that Markdown shows as it is, without links, emphasis or markup."""
    return _LINKS.sub(lambda m: "\\" + m[0], _SPECIAL.sub(lambda m: "\\" + m[0], one_line(text, limit)))


def code(text: str) -> str:
    """Foreign text as a Markdown code span on one line; works inside tables."""
    line = one_line(text).replace("|", "¦").replace("`", "'")
    return f"`{line}`" if line else ""


def fence(text: str, language: str = "") -> str:
    """Foreign text as a code block that it cannot leave."""
    text = clean(text).rstrip("\n")
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{ticks}{language}\n{text}\n{ticks}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """A Markdown table of cells that are Markdown already; `numeric` columns are set to the right."""
    rule = ["---:" if i in numeric else "---" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def to_html(markdown: str, title: str, pictures: Mapping[str, str]) -> str:
    """One self-contained page.

    Args:
        markdown: The page; its images are replaced by `pictures`.
        title: Plain text.
        pictures: SVG by the name of the image it stands for; they are trusted.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for before, token in pairwise(tokens):
        # A cell that holds nothing but the name of a verdict is painted in its colour.
        if before.type == "td_open" and token.content.strip("*") in _CLASSES:
            before.attrSet("class", f"verdict {token.content.strip('*')}")
    rules = cast("dict[str, Any]", parser.renderer.rules)  # type: ignore[attr-defined]
    rules["table_open"] = lambda *_: '<div class="table"><table>\n'
    rules["table_close"] = lambda *_: "</table></div>\n"
    rules["fence"] = lambda found, i, *_: _block(found[i])
    rules["image"] = lambda found, i, *_: _picture(pictures.get(str(found[i].attrGet("src")), ""))
    body = parser.renderer.render(tokens, parser.options, {})
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(one_line(title))}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )


def _picture(svg: str) -> str:
    return f'<span class="plot">{_inline(svg)}</span>' if svg else ""


def _inline(svg: str) -> str:
    """The picture without its XML prolog and white ground, its ink in the colours of the page."""
    svg = svg[svg.index("<svg") :]
    for ink, name in (("#333333", "currentColor"), ("#000000", "currentColor"), ("#666666", "var(--soft)")):
        svg = svg.replace(ink, name)
    return svg.replace("#ffffff", "var(--back)").replace("#d9d9d9", "var(--line)")


def _block(token: Token) -> str:
    lines = token.content.rstrip("\n").split("\n")
    if token.info == "diff":
        return f"<pre><code>{chr(10).join(_diff_line(line) for line in lines)}\n</code></pre>\n"
    return f"<pre><code>{html.escape(token.content)}</code></pre>\n"


def _diff_line(line: str) -> str:
    text = html.escape(line)
    for prefix, name in (
        ("diff ", "file"),
        ("+++", "file"),
        ("---", "file"),
        ("@@", "hunk"),
        ("+", "add"),
        ("-", "del"),
    ):
        if line.startswith(prefix):
            return f'<span class="{name}">{text}</span>'
    return text
