"""When new keys of encrypted networks are ordered."""

from shoal.core.network_keys import ROTATION_PERIOD_NS, is_encrypted, order_rotation, rotation_due_ns
from shoal.core.overlay import data_path
from shoal.model.objects import Cluster, Meta, Network
from shoal.model.specs import NetworkSpec


def network(created_at_ns=0, driver="overlay", **options):
    spec = NetworkSpec(name="n", driver=driver, options=options)
    return Network(id=f"n{created_at_ns}", meta=Meta(created_at_ns=created_at_ns), spec=spec)


def test_only_encrypted_overlays_need_keys():
    assert is_encrypted(network(encrypted=""))
    assert not is_encrypted(network())
    assert not is_encrypted(network(driver="bridge", encrypted=""))
    assert rotation_due_ns(Cluster(id="c"), [network()]) is None


def test_the_period_begins_with_the_first_network_and_with_every_order():
    networks = [network(200, encrypted=""), network(100, encrypted=""), network(5)]
    cluster = Cluster(id="c")
    assert rotation_due_ns(cluster, networks) == 100 + ROTATION_PERIOD_NS
    ordered = order_rotation(cluster, 7_000)
    assert ordered.network_key_generation == 1
    assert rotation_due_ns(ordered, networks) == 7_000 + ROTATION_PERIOD_NS
    assert order_rotation(ordered, 8_000).network_key_generation == 2
    assert data_path([], ordered).key_generation == 1
