"""A report as one HTML file that loads nothing from elsewhere. Light or dark is the reader's own setting."""

import re
from collections.abc import Sequence
from html import escape
from typing import Final

from model.evaluation.axes import AXIS, COLOURS, GREYS, GRID, INK
from model.evaluation.replay.document import Alert, Block, Bullets, Heading, Picture, Table, Text

_DARK: Final = {
    INK: "#e4e6ea",
    GRID: "#363b44",
    AXIS: "#8b919c",
    GREYS[1]: "#b9bec8",
    "#ffffff": "#16181d",
    **dict(
        zip(
            COLOURS,
            ("#6cb2f2", "#ff8a97", "#5fd0a2", "#f5b454", "#b795f0", "#4fd0da", "#f08cc0", "#d6c35a", "#d08b63"),
            strict=True,
        )
    ),
}
"""Colours of pictures on a dark page."""
_NAMES: Final = {colour: f"--p{at}" for at, colour in enumerate(_DARK)}
_LENGTHS: Final = ((49, "words"), (25, "long"), (13, "name"), (0, "short"))
"""How a cell of text breaks its lines, by its length."""
_VERDICTS: Final = {"OK": "ok", "attention": "attention", "FAIL": "fail"}

_OPEN: Final = 15
"""Tables with more rows are opened by the reader."""

_STYLE: Final = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1d2026; --soft: #5b6270; --line: #dfe3ea; --panel: #f5f7fa;
  --red: #b3261e; --red-panel: #fdecea; --amber: #7a5200; --amber-panel: #fff5dc; --green: #1b6e3c; --link: #1f5fa8; LIGHT }
@media (prefers-color-scheme: dark) { :root { --page: #16181d; --ink: #e4e6ea; --soft: #a3aab6; --line: #323741;
  --panel: #1f232a; --red: #ff9b92; --red-panel: #3a1f1e; --amber: #f3c969; --amber-panel: #352b15; --green: #7fd6a0;
  --link: #8ab8f5; DARK } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 4rem; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.75rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
p, li { max-width: 50rem; }
p { margin: .75rem 0; }
ul { padding-left: 1.2rem; margin: .75rem 0; }
li { margin: .25rem 0; overflow-wrap: anywhere; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--panel); padding: .1em .3em;
  border-radius: .25rem; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; font-size: .92rem; margin: 1rem 0; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
.alert { border-left: .3rem solid var(--amber); background: var(--amber-panel); padding: .2rem 1rem; margin: 1rem 0;
  border-radius: .25rem; }
.alert.red { border-color: var(--red); background: var(--red-panel); }
.alert strong:first-child { color: var(--amber); } .alert.red strong:first-child { color: var(--red); }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: .5rem; max-width: 100%;
  width: fit-content; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); background: var(--panel); vertical-align: bottom; }
tr:last-child td { border-bottom: 0; }
th.left, td.left { text-align: left; }
td.words { white-space: normal; min-width: 16rem; max-width: 34rem; overflow-wrap: anywhere; }
td:first-child { font-weight: 600; position: sticky; left: 0; background: var(--page); }
td.long { white-space: normal; min-width: 9rem; max-width: 16rem; overflow-wrap: break-word; }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--link); font-size: .92rem; }
@media (max-width: 40rem) { th, td { padding: .35rem .6rem; } td.name { white-space: normal; min-width: 5.5rem; max-width: 8rem; }
  td.long { min-width: 8.5rem; } }
th:first-child { position: sticky; left: 0; z-index: 1; }
.ok { color: var(--green); } .attention { color: var(--amber); font-weight: 600; } .fail { color: var(--red); font-weight: 700; }
figure { margin: 1rem 0; min-width: 0; }
figure .box { overflow-x: auto; }
figure svg { display: block; width: 100%; min-width: 33rem; height: auto; max-width: 44rem; }
figure.wide svg { min-width: 42rem; max-width: 60rem; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 50rem; margin-top: .4rem; }
@media print { .scroll { border: 0; } nav { display: none; } }
"""


def as_page(title: str, blocks: Sequence[Block]) -> str:
    light = " ".join(f"{name}: {colour};" for colour, name in _NAMES.items())
    dark = " ".join(f"{name}: {_DARK[colour]};" for colour, name in _NAMES.items())
    headings = [block.text for block in blocks if isinstance(block, Heading)]
    links = "".join(f'<a href="#{_anchor(text)}">{escape(text)}</a>' for text in headings)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE.replace('LIGHT', light).replace('DARK', dark)}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n<nav>{links}</nav>\n"
        + "\n".join(map(_block, blocks))
        + "\n</main>\n</body>\n</html>\n"
    )


def _block(block: Block) -> str:
    match block:
        case Heading(text):
            return f'<h2 id="{_anchor(text)}">{escape(text)}</h2>'
        case Text(text):
            return f"<p>{_inline(text)}</p>"
        case Bullets(lines):
            return f"<ul>{''.join(f'<li>{_inline(line)}</li>' for line in lines)}</ul>"
        case Alert(red, lines):
            said = "".join(f"<p>{_inline(line)}</p>" for line in lines)
            return f'<div class="{"alert red" if red else "alert"}">{said}</div>'
        case Table(heads, rows, left):
            head = "".join(_cell("th", text, at in left) for at, text in enumerate(heads))
            body = "".join(
                f"<tr>{''.join(_cell('td', text, at in left) for at, text in enumerate(row))}</tr>" for row in rows
            )
            table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            box = f'<div class="scroll" tabindex="0">{table}</div>'
            return (
                box if len(rows) <= _OPEN else f"<details><summary>{len(rows)} rows as a table</summary>{box}</details>"
            )
        case Picture(svg, caption, wide):
            return f'<figure{" class=wide" if wide else ""}><div class="box">{_themed(svg, caption)}</div><figcaption>{_inline(caption)}</figcaption></figure>'


def _cell(tag: str, text: str, left: bool) -> str:
    classes = [
        *(["left"] if left else []),
        *([next(name for least, name in _LENGTHS if len(text) >= least)] if left and tag == "td" else []),
        *([_VERDICTS[text]] if text in _VERDICTS else []),
    ]
    said = f' class="{" ".join(classes)}"' if classes else ""
    return f"<{tag}{said}>{_inline(text)}</{tag}>"


def _inline(text: str) -> str:
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", marked)


def _themed(svg: str, caption: str) -> str:
    """A picture whose colours follow the page."""
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda found: f"var({_NAMES[found[0]]})" if found[0] in _NAMES else found[0], svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(caption, quote=True)}" ', 1)


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
