"""No address is given twice, and all are given back, whatever comes and goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.core.allocate.ipam import first_free

steps = st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=120)


@given(prefix=st.integers(26, 29), steps=steps)
def test_addresses(prefix: int, steps: list[tuple[bool, int]]) -> None:
    subnet, gateway = f"10.9.0.0/{prefix}", "10.9.0.1"
    room = 2 ** (32 - prefix) - 3
    held: dict[int, str] = {}
    for give, owner in steps:
        if not give:
            held.pop(owner, None)
        elif owner not in held:
            address = first_free(subnet, gateway, set(held.values()), f"owner{owner}")
            if len(held) == room:
                assert address is None
                continue
            assert address is not None
            host, _, mask = address.partition("/")
            assert mask == str(prefix)
            assert host not in held.values()
            assert host not in (gateway, "10.9.0.0", f"10.9.0.{room + 2}")
            held[owner] = host
    held.clear()
    assert first_free(subnet, gateway, set(held.values()), "last") is not None
