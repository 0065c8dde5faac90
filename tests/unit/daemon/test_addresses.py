"""Which address other nodes reach a node at."""

import pytest

from shoal.daemon.addresses import data_path_host


@pytest.mark.parametrize(
    ("asked", "advertised", "host"),
    [
        ("", "10.0.0.5:2377", "10.0.0.5"),
        ("10.9.0.5", "10.0.0.5:2377", "10.9.0.5"),
        # joined without --advertise-addr: the managers see where it comes from
        ("", "0.0.0.0:2377", ""),
        ("", "[::]:2377", ""),
    ],
)
def test_where_traffic_is_sent(asked, advertised, host):
    assert data_path_host(asked, advertised) == host
