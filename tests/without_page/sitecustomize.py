"""For processes that tests start many of: the report, which takes longer to draw than their run, stays undrawn."""

import sys
from types import ModuleType

page = ModuleType("enrich.report.page")
page.page = lambda *_: ""  # type: ignore[attr-defined]
sys.modules["enrich.report.page"] = page
