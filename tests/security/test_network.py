"""No run asks the network for anything: only `python -m enrich.engine.fetch` and an address for an input do."""

from ..runs import read_rows
from .besieged import ROWS, Siege
from .code import imported, importing

# Whoever imports one of these can open a socket.
REACHING = {"socket", "ssl", "urllib.request", "http", "ftplib", "smtplib", "requests", "httpx", "aiohttp"}
REACHING |= {"urllib3", "huggingface_hub", "fsspec", "pyarrow.fs", "xmlrpc", "asyncio", "socketserver"}


def test_a_night_opens_no_socket(siege: Siege) -> None:
    assert siege.told["nights"] == {"echo": 0, "model": 0}
    assert siege.told["sockets"] == []
    for name in ("echo", "model"):
        rows = read_rows(siege.place / name / "catalogue.enriched.parquet")
        assert [row["title"] for row in rows] == [row["title"] for row in ROWS]
        assert {row["enrich_status"] for row in rows} == {"generated"}


def test_a_socket_would_have_been_refused_and_noted(siege: Siege) -> None:
    assert siege.told["control"] is False


def test_a_night_keeps_the_libraries_off_the_network(siege: Siege) -> None:
    assert siege.told["libraries"] == {"offline": True, "fetches_kernels": False}


def test_only_fetching_and_remote_inputs_can_reach_the_network() -> None:
    assert importing(REACHING, imported()) == {
        "enrich/catalog/sources.py": {"fsspec", "pyarrow.fs"},
        "enrich/engine/fetch.py": {"huggingface_hub"},
    }


def test_nothing_imports_what_fetches() -> None:
    """It is a program of its own."""
    assert importing({"enrich.engine.fetch"}, imported()) == {}
    assert importing({"enrich.engine.bases"}, imported())
