"""`python -m enrich` is `enrich`."""

import sys

from enrich.cli import main

sys.exit(main())
