import pytest

from tests.system.network.place import Place


@pytest.fixture
def place():
    made = Place()
    try:
        yield made
    finally:
        made.close()
