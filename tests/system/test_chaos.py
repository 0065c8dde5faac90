"""A short piece of `tests/system/chaos.py`; the script runs for as long as one likes."""

import pytest

from tests.system.chaos import run

pytestmark = [pytest.mark.root, pytest.mark.long]


def test_two_minutes_of_faults():
    done = run(120.0, seed=1, managers=3, workers=2)
    assert done["update done"] > 20
    assert done["read seen"] > 40
