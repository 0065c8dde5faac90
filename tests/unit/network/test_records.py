"""What a node's network remembers of overlay networks: whole, then differences, and what a kill leaves of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.model.netstate import NetworkChange, Overlay, OverlayEndpoint, OverlayService, OverlayUpdate
from shoal.network.overlays import Holding, merge
from shoal.network.records import Records


def service(number, tasks=1):
    endpoints = tuple(
        OverlayEndpoint(task_id=f"t{number}.{task}", name="n" * 200, addresses=("10.0.0.9",), node_number=1)
        for task in range(tasks)
    )
    return OverlayService(service_id=f"s{number}", names=(f"s{number}",), endpoints=endpoints)


def change(version, network, services=(), removed=(), complete=False, gone=()):
    overlay = Overlay(network_id=network, name=network, vni=5000)
    update = OverlayUpdate(
        overlay=overlay,
        complete=complete,
        services=tuple(map(service, services)),
        removed_service_ids=tuple(f"s{number}" for number in removed),
    )
    return NetworkChange(version=version, overlays=(update,), removed_network_ids=gone)


def fresh(directory):
    records = Records(directory)
    records.prepare()
    return records


changes = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.lists(st.integers(0, 5), max_size=3),
        st.lists(st.integers(0, 5), max_size=2),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=30)
@given(changes)
def test_what_was_written_is_read_again(tmp_path_factory, steps):
    directory = tmp_path_factory.mktemp("records")
    records, held = fresh(directory), Holding()
    for version, (network, services, removed, complete, starts_again) in enumerate(steps, 1):
        gone = tuple({"a", "b"} - {network}) if complete else ()
        made = change(version, network, services, removed, complete, gone)
        after = merge(held, made)
        records.write_holding(held, after, made.overlays)
        held = after
        if starts_again:
            records = fresh(directory)
            assert records.read_holding() == held
    assert fresh(directory).read_holding() == held


def test_a_difference_that_is_half_written_is_left_out_and_nothing_after_it_is_lost(tmp_path):
    records, held = fresh(tmp_path), Holding()
    for made in (change(1, "a", [1], complete=True), change(2, "a", [2])):
        after = merge(held, made)
        records.write_holding(held, after, made.overlays)
        held = after
    (path,) = (tmp_path / "overlays").glob("*.changes")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    again = fresh(tmp_path)
    assert again.read_holding() == held
    made = change(3, "a", [3])
    after = merge(held, made)
    again.write_holding(held, after, made.overlays)
    assert fresh(tmp_path).read_holding() == after


def test_many_differences_take_no_more_room_than_the_whole(tmp_path):
    records, held = fresh(tmp_path), Holding()
    for version in range(1, 200):
        made = change(version, "a", [version % 7])
        after = merge(held, made)
        records.write_holding(held, after, made.overlays)
        held = after
    sizes = {path.suffix: path.stat().st_size for path in (tmp_path / "overlays").iterdir()}
    assert sizes.get(".changes", 0) <= max(sizes[".msgpack"], 4096) + 1024
    assert fresh(tmp_path).read_holding() == held
    records.forget_all()
    assert not tmp_path.exists()
