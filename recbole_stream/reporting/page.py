"""Pieces of a page that stands alone: one HTML file without scripts, fonts or anything else from elsewhere.

Each function takes plain text, which it escapes, and returns HTML.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

from recbole_stream.reporting.plots import svg

__all__ = ["Cell", "code", "figure", "heading", "note", "page", "picture", "table", "terms"]

# the text of a cell, or the text and the HTML element that encloses it
Cell = str | tuple[str, str]

# what a cell of a numeric column holds: a number, perhaps with a deviation, or a dash for "not measured"
_NUMBER = re.compile(r"[-+<]?[\d,]*\.?\d+%?( (±|to) .*)?|–")

_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1a1a1a; --faint: #5c5c5c; --line: #d5d5d5; --band: #f5f5f5 }
@media screen and (prefers-color-scheme: dark) {
  :root { --page: #15181c; --text: #e8e8e8; --faint: #a9a9a9; --line: #3a4046; --band: #1d2227 }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 84rem; padding: 1.5rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem }
p, figcaption { max-width: 48rem }
.faint, figcaption { color: var(--faint); font-size: .875rem }
nav a { color: inherit; display: inline-block; margin-right: 1rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .8125rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .5rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { border-bottom: 2px solid var(--text); vertical-align: bottom }
tbody tr:nth-child(even) { background: var(--band) }
.figures td { white-space: nowrap }
.figures .number { text-align: right }
.values td { overflow-wrap: anywhere }
figure { margin: 1rem 0 }
figure svg { display: block; max-width: 100%; height: auto }
figure img { display: block; max-width: 100%; background: #ffffff; padding: .5rem }
pre { background: var(--band); padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .875rem }
.keys { columns: 20rem; font-size: .75rem; margin: 0; padding: 0; list-style: none; overflow-wrap: anywhere }
@page { margin: 15mm }
@media print {
  :root { color-scheme: light; font-size: 9pt }
  body { max-width: none; padding: 0 }
  nav { display: none }
  h2, h3 { break-after: avoid }
  figure, tr { break-inside: avoid }
  .scroll { overflow: visible }
  table { font-size: 7.5pt }
  th, td { padding: .1rem .35rem }
}
"""


def page(title: str, summary: str, sections: Sequence[tuple[str, str]], style: str = "") -> str:
    """The whole file.

    Args:
        title: of the page.
        summary: a line below it.
        sections: heading, which has to differ from the others, and content in HTML.
        style: CSS of this page alone.
    """
    links = "".join(f'<a href="#{_id(name)}">{escape(name)}</a> ' for name, _ in sections)
    body = "".join(
        f'<section id="{_id(name)}">\n<h2>{escape(name)}</h2>\n{content}</section>\n' for name, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # the page needs inline styles and embedded pictures only; this lets the browser refuse everything else
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n<header>\n"
        f'<h1>{escape(title)}</h1>\n<p class="faint">{escape(summary)}</p>\n<nav>{links}</nav>\n</header>\n'
        f"<main>\n{body}</main>\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """A heading inside a section."""
    return f"<h3>{escape(text)}</h3>\n"


def note(text: str) -> str:
    """A paragraph that explains what stands above or below it."""
    return f'<p class="faint">{escape(text)}</p>\n'


def code(text: str) -> str:
    """A block in a fixed width."""
    return f"<pre><code>{escape(text)}</code></pre>\n"


def terms(pairs: Sequence[tuple[str, str]]) -> str:
    """A dense list of names and values."""
    items = "".join(f"<li><b>{escape(name)}</b> {escape(value)}</li>\n" for name, value in pairs)
    return f'<ul class="keys">\n{items}</ul>\n'


def table(headings: Sequence[str], lines: Sequence[Sequence[Cell]], style: str = "figures") -> str:
    """A table; in the style "figures" columns of numbers are set to the right, in "values" long words are broken."""
    texts = [[cell if isinstance(cell, str) else cell[0] for cell in line] for line in lines]
    right = [style == "figures" and all(map(_NUMBER.fullmatch, column)) for column in zip(*texts)]

    def element(name: str, column: int, content: str) -> str:
        return f'<{name} class="number">{content}</{name}>' if right[column] else f"<{name}>{content}</{name}>"

    def marked(cell: Cell) -> str:
        return escape(cell) if isinstance(cell, str) else f"<{cell[1]}>{escape(cell[0])}</{cell[1]}>"

    head = "".join(element("th", column, escape(name)) for column, name in enumerate(headings))
    head = f"<thead><tr>{head}</tr></thead>\n" if headings else ""
    body = "\n".join(
        "<tr>" + "".join(element("td", column, marked(cell)) for column, cell in enumerate(line)) + "</tr>"
        for line in lines
    )
    return f'<div class="scroll"><table class="{style}">\n{head}<tbody>\n{body}\n</tbody></table></div>\n'


def figure(drawing: Figure, name: str, caption: str) -> str:
    """A plot of :mod:`recbole_stream.reporting.plots`; its name, letters and digits, has to differ from the page's others."""
    return f"<figure>\n{svg(drawing, name, caption)}\n<figcaption>{escape(caption)}</figcaption></figure>\n"


def picture(png: bytes, caption: str) -> str:
    """A picture that is stored as PNG."""
    source = base64.b64encode(png).decode("ascii")
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{source}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _id(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())
