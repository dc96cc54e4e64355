"""Who writes which row: one author for all of them, or one for each value of a column, on one base.

Knows a row by the value that chooses its adapter, and nothing of catalogues, passes or texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from enrich.author import Author, read_named
from enrich.catalog.columns import Gap
from enrich.errors import SettingsError
from enrich.plan import routing_value
from enrich.recipe import Recipe
from enrich.settings import Settings
from enrich.text import clean


@dataclass(frozen=True)
class Authors:
    """The author of [model], and by cleaned value of `column` those that write in its place."""

    default: Author
    column: str | None
    by_value: Mapping[str, Author]

    @classmethod
    def choose(cls, settings: Settings) -> "Authors":
        """Finds the adapters of every value and checks that all of them belong to the one base and template.

        The echo engine has no adapters, and one author. Raises what `Author.choose` raises, and `SettingsError`
        for two values that read the same once they are cleaned.
        """
        default = Author.choose(settings)
        named = settings.adapters.values
        if default.base is None or not named:
            return cls(default, settings.adapters.column, {})
        authors = {each: default.with_adapter(read_named(each)) for each in sorted(set(named.values()))}
        by_value = {clean(value): authors[named[value]] for value in sorted(named)}
        if len(by_value) < len(named):
            raise SettingsError("adapters.values: two of the values read the same once cleaned: keep one of them")
        return cls(default, settings.adapters.column, by_value)

    def recipe_of(self, gap: Gap) -> Recipe:
        """The recipe of a row's text."""
        value = routing_value(gap)
        author = self.default if value is None else self.by_value.get(value, self.default)
        return author.recipe

    @cached_property
    def distinct(self) -> list[Author]:
        """One author a recipe, whatever the number of values; the default one first, the others by value."""
        found: dict[str, Author] = {}
        for author in (self.default, *self.by_value.values()):
            found.setdefault(author.recipe.digest, author)
        return list(found.values())

    def provenance(self) -> dict[str, object]:
        """What the published file says of its texts; with more than one author, also which value was whose."""
        told = self.default.provenance()
        if not self.by_value:
            return told
        adapters = [author.adapter.provenance() for author in self.distinct if author.adapter]
        values = {value: author.adapter and author.adapter.digest for value, author in self.by_value.items()}
        return {**told, "adapters": adapters, "chosen_by": {"column": self.column, "values": values}}
