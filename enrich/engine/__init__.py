"""From prompt ids to the ids of texts, on whatever machine there is."""

import os

# Read by the libraries when they are imported: whoever imports any part of the engine comes by here first.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["USE_HUB_KERNELS"] = "NO"
