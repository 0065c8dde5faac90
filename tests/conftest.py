"""For all tests: property tests draw the same examples each time, so that a run twice is the same run.

`scripts/test --long` sets SHOAL_RANDOM_EXAMPLES, and they draw new ones.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, database=None)
settings.register_profile("random", print_blob=True)
settings.load_profile("random" if os.environ.get("SHOAL_RANDOM_EXAMPLES") else "fixed")

COMMANDS_FILE = os.environ.get("SHOAL_COMMANDS_FILE", "")


@pytest.fixture(autouse=True, scope="session")
def _commands_written_down() -> Iterator[None]:
    """With SHOAL_COMMANDS_FILE, write every command that a test runs there, with the test: for `compatibility.py`."""
    if not COMMANDS_FILE:
        yield
        return
    start = subprocess.Popen.__init__

    def noted(process: Any, words: Any, *arguments: Any, **keywords: Any) -> None:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0].partition("[")[0]
        if test and isinstance(words, list | tuple):
            with Path(COMMANDS_FILE).open("a") as file:
                file.write(json.dumps([test, [str(word) for word in words]]) + "\n")
        start(process, words, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", noted)
        yield
