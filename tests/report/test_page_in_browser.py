"""The report in a real browser: on a telephone and a desk, in light and dark, with and without its script."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from enrich.report.page import page

from .chromium import PROGRAM, Browser, Tab, chromium
from .nights import catalogue, failed, night_before, summary
from .test_page import HOSTILE, saying

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine: apt-get install chromium")

NIGHT = catalogue(num_worst=30, num_random=10)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of one catalogue with every part."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(page(summary(NIGHT), night_before()), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def worse_night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In Portuguese, of several catalogues, one of which failed and one says hostile things."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    hostile = [each for words in HOSTILE if words for each in saying(words)["catalogues"][:1]]
    told = summary(catalogue(9000, num_worst=3, num_random=2), failed(), *hostile)
    file.write_text(page(told, night_before(), "pt"), encoding="utf-8")
    return file


def troubles(tab: Tab) -> list[object]:
    """What the page said on the console, and what it asked for besides itself."""
    spoken = tab.events(
        "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening"
    )
    asked = [each["request"]["url"] for each in tab.events("Network.requestWillBeSent")]
    return [*spoken, *asked[1:]]


def violations(tab: Tab) -> list[tuple[str, str, str]]:
    """What axe-core finds to be serious or critical, with everything open that can be opened."""
    tab.ask("for (const each of document.querySelectorAll('details')) each.open = true")
    tab.ask((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8") + "; 0")
    found = tab.ask("axe.run({resultTypes: ['violations']}).then((found) => found.violations)")
    return [
        (each["id"], each["help"], each["nodes"][0]["html"])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def scrolls_sideways(tab: Tab) -> bool:
    return bool(tab.ask("document.documentElement.scrollWidth > innerWidth"))


@pytest.mark.parametrize(
    ("kind", "width", "theme"),
    [
        ("night", 390, "light"),
        ("night", 390, "dark"),
        ("night", 1440, "light"),
        ("night", 1440, "dark"),
        ("worse_night", 390, "dark"),
        ("worse_night", 1440, "light"),
    ],
)
def test_the_page_is_quiet_fits_and_is_accessible(
    browser: Browser, kind: str, width: int, theme: str, request: pytest.FixtureRequest
) -> None:
    tab = browser.open(request.getfixturevalue(kind), width, theme)
    assert tab.ask("matchMedia('(prefers-color-scheme: dark)').matches") == (theme == "dark")
    assert not scrolls_sideways(tab)
    assert violations(tab) == []
    assert not scrolls_sideways(tab)
    assert troubles(tab) == []
    tab.close()


def test_trouble_would_be_seen(browser: Browser, night: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.html"
    worse = '<h1 style="color: red">x</h1><script>alert(1)</script><img src="file:///x.png"><input><pre>' + "x" * 999
    spoilt.write_text(night.read_text(encoding="utf-8").replace("<main>", f"<main>{worse}</pre>"), encoding="utf-8")
    tab = browser.open(spoilt, 390)
    assert scrolls_sideways(tab)
    assert {"image-alt", "label"} <= {rule for rule, *_ in violations(tab)}
    said = str(troubles(tab))
    for refused in ("Applying inline style", "Executing inline script", "Loading the image"):
        assert refused in said
    tab.close()


def test_a_hostile_catalogue_adds_no_element_that_acts(browser: Browser, worse_night: Path) -> None:
    tab = browser.open(worse_night)
    acting = "script, style, iframe, img, object, embed, link, form, a, base"
    assert tab.ask(f"document.querySelectorAll('{acting}').length") == 2
    names = "[...document.querySelectorAll('*')].flatMap((each) => [...each.attributes].map(({name}) => name))"
    assert not {name for name in tab.ask(names) if name.startswith("on") or name in ("style", "src", "href")}
    tab.close()


def shown(tab: Tab, data: str) -> list[str]:
    """A datum of the worst texts that are to be seen, in order."""
    return list(
        tab.ask(
            "[...document.querySelector('.cards').children].filter((each) => each.offsetParent)"
            f".map((each) => each.dataset.{data} ?? '')"
        )
    )


def choose(tab: Tab, tool: str, value: str) -> None:
    tab.ask(
        f"{{ const tool = document.querySelector('[data-tool={tool}]'); tool.value = {value!r};"
        "tool.dispatchEvent(new Event('input', {bubbles: true})); }"
    )


def test_texts_can_be_found_and_sorted(browser: Browser, night: Path) -> None:
    tab, worst = browser.open(night), NIGHT["worst"]
    as_given = [str(each["row"]) for each in worst]
    assert shown(tab, "row") == as_given

    choose(tab, "find", "CERAMICA pour")
    fits = [str(each["row"]) for each in worst if each["title"].startswith("Ceramic")]
    assert shown(tab, "row") == fits
    assert 0 < len(fits) < 30
    assert tab.ask("document.querySelector('[data-count]').textContent") == f"{len(fits)} of 30"
    choose(tab, "find", "no such words")
    assert shown(tab, "row") == []
    choose(tab, "find", "")

    choose(tab, "status", "approved")
    assert shown(tab, "row") == [str(each["row"]) for each in worst if each["status"] == "approved"] != as_given
    choose(tab, "status", "")
    choose(tab, "flag", "trimmed")
    assert shown(tab, "row") == [str(each["row"]) for each in worst if "trimmed" in each["flags"]] != []
    choose(tab, "flag", "-")
    assert shown(tab, "row") == [str(each["row"]) for each in worst if not each["flags"]] != []
    choose(tab, "flag", "")

    for key in ("score", "-score", "row", "length", "-length"):
        choose(tab, "sort", key)
        numbers = [int(each) for each in shown(tab, key.removeprefix("-"))]
        assert numbers == sorted(numbers, reverse=key.startswith("-"))
        assert len(numbers) == 30
    choose(tab, "sort", "")
    assert shown(tab, "row") == as_given
    assert troubles(tab) == []
    tab.close()


def test_without_its_script_the_page_shows_everything(browser: Browser, night: Path) -> None:
    tab = browser.open(night, scripts=False)
    assert len(shown(tab, "row")) == 30
    hidden = tab.ask(
        "[...document.body.querySelectorAll('*')]"
        ".filter((each) => !each.closest('details, script') && !each.getClientRects().length)"
        ".map((each) => each.closest('.tools')?.className ?? each.outerHTML)"
    )
    assert set(hidden) == {"tools"}
    assert tab.ask("document.querySelectorAll('mark').length") == sum(
        len(each["unsupported"]) for each in [*NIGHT["worst"], *NIGHT["random"]]
    )
    tab.close()
