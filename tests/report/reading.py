"""A page of HTML as a tree that tests can ask."""

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder

_VOID = {"meta", "input", "br", "link", "img"}


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tree = TreeBuilder()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tree.start(tag, {name: value or "" for name, value in attrs})
        if tag in _VOID:
            self.tree.end(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tree.start(tag, {name: value or "" for name, value in attrs})
        self.tree.end(tag)

    def handle_endtag(self, tag: str) -> None:
        self.tree.end(tag)

    def handle_data(self, data: str) -> None:
        self.tree.data(data)


def read(page: str) -> Element:
    """The `html` element."""
    builder = _Builder()
    builder.feed(page.removeprefix("<!doctype html>").strip())
    builder.close()
    return builder.tree.close()


def found(root: Element, tag: str | None = None, kind: str | None = None, **attributes: str) -> list[Element]:
    """Elements of this tag, class and attributes, in order."""
    return [
        each
        for each in root.iter(tag)
        if (kind is None or kind in each.get("class", "").split())
        and all(each.get(name.replace("_", "-")) == value for name, value in attributes.items())
    ]


def said(element: Element) -> str:
    """All its text, without the white space of the source."""
    return " ".join("".join(element.itertext()).split())


def rows(table: Element, part: str = "tbody") -> list[list[str]]:
    """Cells of a part of a table."""
    return [[said(cell) for cell in row] for each in found(table, part) for row in found(each, "tr")]


def shape(root: Element) -> list[tuple[str, Any]]:
    """Tags in order, each with the names of its attributes; not those of characters made visible."""
    return list(_shape(root))


def _shape(root: Element) -> Iterator[tuple[str, Any]]:
    for each in root.iter():
        if each.tag != "i":
            yield each.tag, sorted(each.attrib)
