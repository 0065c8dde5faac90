import pytest

from tests.system.network.place import Place
from tests.system.network.three_hosts import ThreeHosts


@pytest.fixture
def place():
    made = Place()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def hosts():
    made = ThreeHosts()
    try:
        yield made
    finally:
        made.close()
