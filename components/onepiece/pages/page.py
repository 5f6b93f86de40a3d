"""The pieces that every page is made of; no script, no font, no picture from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from onepiece.pages.style import STYLE


@dataclass(frozen=True, slots=True)
class Tile:
    """One number that stands at the head of a page."""

    value: str
    what: str
    """What it is the value of."""
    colour: str = ""
    """"good", "bad", or neither."""


def whole_page(body: str, *, title: str) -> str:
    """Frames a body, HTML already; the title is escaped."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f"</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def tiles(shown: Sequence[Tile]) -> str:
    """Writes numbers side by side; everything in them is escaped."""
    tiled = "".join(
        f'<div class="tile"><b class="{tile.colour}">{escape(tile.value)}</b>'
        f"<span>{escape(tile.what)}</span></div>"
        for tile in shown
    )
    return f'<div class="tiles">{tiled}</div>\n'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, num_left: int = 1) -> str:
    """Writes a table; its cells are HTML already, escaped where they were made."""

    def tag(name: str, place: int, cell: str) -> str:
        return f"<{name}{' class=left' if place < num_left else ''}>{cell}</{name}>"

    top = "".join(
        f'<th scope="col"{" class=left" if place < num_left else ""}>{cell}</th>'
        for place, cell in enumerate(head)
    )
    body = "".join(
        "<tr>" + "".join(tag("td", place, cell) for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def definitions(facts: Mapping[str, str]) -> str:
    """Lists names and values; both are escaped."""
    pairs = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<dl>{pairs}</dl>"
