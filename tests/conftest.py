"""For all tests: property tests draw the same examples each time, so that a run twice is the same run.

`scripts/test --long` sets SHOAL_RANDOM_EXAMPLES, and they draw new ones.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, database=None)
settings.register_profile("random", print_blob=True)
settings.load_profile("random" if os.environ.get("SHOAL_RANDOM_EXAMPLES") else "fixed")
