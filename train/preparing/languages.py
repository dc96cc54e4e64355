"""Which language a text is in, by py3langid: small, maintained, needs nothing but numpy, and always says the same.

Imported only where a language is asked for.
"""

from py3langid.langid import MODEL_FILE, LanguageIdentifier

# Those a catalogue may be in. Among all 97 that the model knows, short texts full of brands are taken for Latin.
_CANDIDATES = ["ar", "de", "en", "es", "fr", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh"]


class Languages:
    """Tells the language of texts, as a code of ISO 639-1."""

    def __init__(self) -> None:
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
        self._identifier.set_languages(_CANDIDATES)

    def of(self, text: str) -> str:
        return str(self._identifier.classify(text)[0])
