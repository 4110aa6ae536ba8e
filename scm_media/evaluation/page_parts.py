"""The parts of pages that stand alone: the frame with its style, tables, lists, and samples side by side."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from scm_media.display import printable
from scm_media.evaluation.side_by_side import SampleFile, SampleRow

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --line: #8885; --soft: #8881; --note: #b8860b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #16181c; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 72rem;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.lead { font-size: 1.05rem; } .note { border-left: 4px solid var(--note); padding-left: 1.6rem; }
.wide { overflow-x: auto; } .wide:focus-visible { outline: 2px solid currentColor; }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.plots figure { margin: 0; } svg { width: 100%; max-width: 36rem; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th[scope=row], thead th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
.samples th[scope=row] { white-space: normal; min-width: 4.5rem; max-width: 7rem; }
.samples td { vertical-align: top; text-align: center; padding: .3rem; }
.samples img, .samples video { width: 8rem; image-rendering: pixelated; display: block; margin: auto; }
.samples .sound img { width: 16rem; image-rendering: auto; } .samples audio { width: 16rem; display: block; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .6rem; }
"""


def escape(text: object) -> str:
    """Returns text of unknown origin as a page shows it, also within quotes."""
    return html.escape(printable(text))


def document(title: str, body: Iterable[str]) -> str:
    """Returns a whole page, which needs nothing outside itself and runs no script; title: plain text."""
    policy = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            f"<h1>{escape(title)}</h1>",
            *body,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of plain text, which scrolls sideways on a narrow screen, also by the keyboard.

    The first cell of a row is its name.
    """
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    lines = [
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}">',
        "<table>",
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
    ]
    for name, *cells in rows:
        shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{shown}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>", "</div>"])


def section(title: str, *parts: str) -> list[str]:
    """Returns a heading and what belongs to it; nothing where there is none."""
    kept = [part for part in parts if part]
    return [f"<h2>{escape(title)}</h2>", *kept] if kept else []


def paragraph(text: str, kind: str = "") -> str:
    """Returns a paragraph of plain text; kind: its class."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def bullets(texts: Sequence[str], kind: str = "") -> str:
    """Returns a list of plain texts; empty for none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul{_class(kind)}>{items}</ul>" if texts else ""


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def plots(drawings: Sequence[str]) -> str:
    """Returns SVG elements side by side, or one below the other on a narrow screen."""
    figures = "".join(f"<figure>{drawing}</figure>" for drawing in drawings)
    return f'<div class="plots">{figures}</div>' if drawings else ""


def sample_table(rows: Sequence[SampleRow], room: int) -> str:
    """Returns samples with a row for each sampler and a column for each noise, in at most ``room`` characters.

    Where they do not fit, columns are left out and a sentence says so; empty without rows.
    """
    if not rows:
        return ""
    num = min(len(row.files) for row in rows)
    columns = [[_cell(row, index) for row in rows] for index in range(num)]
    overhead = 2_000 + sum(len(escape(row.name)) + 100 for row in rows) + 60 * num
    kept, size = 0, overhead
    for cells in columns:
        size += sum(map(len, cells))
        if size > room:
            break
        kept += 1
    left_out = f"{kept} of {num} samples are shown, so that the page stays small enough to be sent." * (kept < num)
    note = paragraph(left_out) if left_out else ""
    if kept == 0:
        return note
    heads = "".join(f'<th scope="col">sample {index}</th>' for index in range(kept))
    lines = [
        '<div class="wide samples" role="region" tabindex="0" aria-label="samples from the same noise">',
        f'<table><thead><tr><th scope="col">sampler</th>{heads}</tr></thead><tbody>',
    ]
    for number, row in enumerate(rows):
        shown = "".join(column[number] for column in columns[:kept])
        lines.append(f'<tr><th scope="row">{escape(row.name)}</th>{shown}</tr>')
    return "\n".join([note, *lines, "</tbody></table></div>"])


def _cell(row: SampleRow, index: int) -> str:
    """Returns the cell of one sample: a picture, or a player with a text that says what it plays."""
    file: SampleFile = row.files[index]
    said = escape(", ".join(filter(None, (f"sample {index}", row.name, file.label))))
    shown = f"<small>{escape(file.label)}</small>" if file.label else ""
    if file.kind == "image":
        return f'<td><img src="{file.address}" alt="{said}">{shown}</td>'
    if file.kind == "video":
        player = f'<video controls loop muted playsinline aria-label="{said}" src="{file.address}"></video>'
        return f"<td>{player}{shown}</td>"
    picture = f'<img src="{file.picture}" alt="picture of {said}">'
    if file.kind == "audio":
        player = f'<audio controls preload="none" aria-label="{said}" src="{file.address}"></audio>'
        return f'<td class="sound">{picture}{player}{shown}</td>'
    return f'<td class="sound">{picture}{shown}</td>'
