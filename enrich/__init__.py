"""Fills the missing descriptions of product catalogues. The Python API is three calls:

    settings = enrich.load_settings("enrich.toml")
    report = enrich.run("catalog.parquet", settings=settings)
    enrich.verify("catalog.parquet", "catalog.enriched.parquet", settings=settings)

They are imported when first used, so that `enrich --help` answers at once.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enrich.night import run, verify
    from enrich.settings import load_settings

__version__ = "0.1.0"

__all__ = ["load_settings", "run", "verify"]


def __getattr__(name: str) -> Any:
    if name == "load_settings":
        from enrich.settings import load_settings

        return load_settings
    if name in __all__:
        from enrich import night

        return getattr(night, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
