"""The page of a report shows what a catalogue or a model says, in whatever markup it comes, as words."""

from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from itertools import product
from urllib.parse import quote

from enrich.report.page import page

from ..report.nights import Summary, summary
from ..report.reading import found, read, shape
from ..report.test_page import shown_as, small

ACTIONS = [
    "<script>alert(1)</script>",
    "<ScRiPt\n>alert(1)</sCrIpT >",
    "<img src=x onerror=alert(1)>",
    "<img/src/onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script href=data:,alert(1) />",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<form action=javascript:alert(1)><input type=submit>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<body onload=alert(1)>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css';</style>",
    "<div style=background:url(//evil.example/x)>",
    "<marquee onstart=alert(1)>",
    "<template><script>alert(1)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<plaintext>",
    "<textarea autofocus onfocus=alert(1)>",
    "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e 'x'>]>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<!--><img src=x onerror=alert(1)>-->",
    "{{constructor.constructor('alert(1)')()}}",
    "{% include '/etc/passwd' %}{{ config }}",
]
OPENINGS = [
    "",
    '">',
    "'>",
    "`>",
    "-->",
    "--!>",
    "]]>",
    "</script>",
    "</style>",
    "</title>",
    "</textarea>",
    "</svg>",
    "</p></li></ol></main>",
    "</bdi></h5>",
    "\x00",
    "\u2028",
    "&quot;>",
    "\\x22\\x3e",
    '" x=',
    "javascript:/*--></title>*/",
]


# As many as a page shows of a catalogue: the worst, and some by lot.
TEXTS = 70


def payloads() -> Iterator[str]:
    """Each action behind each way to break out, some of them in other writings."""
    yield from (opening + action for action, opening in product(ACTIONS, OPENINGS))
    for write in (escape, quote, full_width, lambda each: each.replace("<", "\\u003c")):
        yield from (write(opening + action) for action, opening in product(ACTIONS, OPENINGS[:3]))


def full_width(text: str) -> str:
    return text.replace("<", "＜").replace(">", "＞")


def saying(words: list[str]) -> Summary:
    """A night in whose texts each place says one of these words."""
    shown = [
        {
            "row": 1, "id": each, "title": each, "attributes": [[each, each]], "text": each, "status": "held",
            "score": 10, "flags": ["url"], "unsupported": [{"kind": each, "start": 0, "end": 3}],
        }
        for each in words
    ]  # fmt: skip
    return summary(small(input=words[0], output=words[-1], worst=shown[:50], random=shown[50:]))


def test_no_payload_is_anything_but_words() -> None:
    every = list(dict.fromkeys(payloads()))
    assert len(every) >= 926
    harmless = shape(read(page(saying([f"word {number}" for number in range(TEXTS)]), None)))
    for start in (*range(0, len(every) - TEXTS, TEXTS), len(every) - TEXTS):
        words = every[start : start + TEXTS]
        root = read(page(saying(words), None))
        assert shape(root) == harmless, start
        titles = ["".join(each.itertext()) for each in found(root, "h5")]
        assert titles == [shown_as(each) for each in words]


class Tags(HTMLParser):
    """The tags that a piece of HTML opens, as the reader of the page sees them."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)


def test_put_in_as_they_are_most_payloads_would_be_seen() -> None:
    seen = [each for each in payloads() if Tags(f"<bdi>{each}</bdi>").opened != ["bdi"]]
    assert len(seen) > 500
    assert Tags("<bdi>words &lt;b&gt;</bdi>").opened == ["bdi"]
