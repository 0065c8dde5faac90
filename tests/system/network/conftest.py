import pytest

from tests.system.network.hosts import Hosts
from tests.system.network.place import Place


@pytest.fixture
def place():
    made = Place()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def hosts():
    made = Hosts()
    try:
        yield made
    finally:
        made.close()
