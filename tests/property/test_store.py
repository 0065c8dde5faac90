"""The store: whatever is written reads back, and a snapshot says the same as the history it was taken of."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.lib.clock import ManualClock
from shoal.model.actions import Action, Create, LogEntry, PatchNode, PatchService, PatchTask, Remove, Replace
from shoal.model.container_spec import ContainerSpec
from shoal.model.messages import Message
from shoal.model.objects import (
    Attachment,
    Endpoint,
    Network,
    Node,
    NodeStatus,
    Service,
    StoreObject,
    Task,
    TaskStatus,
    UpdateStatus,
    VirtualIP,
)
from shoal.model.specs import EndpointSpec, NetworkSpec, PortConfig, ServiceSpec, TaskSpec
from shoal.model.states import NodeState, TaskState, UpdateState
from shoal.store.store import Store

REGISTERED = (*get_args(StoreObject), *get_args(Action), *get_args(Message), LogEntry)
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=3,
)


def values(annotation: object, depth: int = 0) -> st.SearchStrategy[object]:
    """A strategy of the values of a field's type; deep structs stand with their defaults."""
    kind = msgspec.inspect.type_info(annotation)
    return _values(kind, depth)


def _values(kind: msgspec.inspect.Type, depth: int) -> st.SearchStrategy[object]:  # noqa: C901
    inspect = msgspec.inspect
    if isinstance(kind, inspect.StructType):
        fields = {}
        for field in kind.fields:
            if field.required or depth < 2:
                strategy = _values(field.type, depth + 1)
                if not field.required:
                    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
                    strategy = st.just(default) | strategy
                fields[field.name] = strategy
        return st.builds(kind.cls, **fields)
    match kind:
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(-(2**62), 2**62)
        case inspect.FloatType():
            return st.floats(allow_nan=False)
        case inspect.StrType():
            return st.text(max_size=6)
        case inspect.BytesType():
            return st.binary(max_size=6)
        case inspect.EnumType():
            return st.sampled_from(kind.cls)
        case inspect.AnyType():
            return plain_json
        case inspect.VarTupleType():
            return st.lists(_values(kind.item_type, depth + 1), max_size=2).map(tuple)
        case inspect.TupleType():
            return st.tuples(*(_values(one, depth + 1) for one in kind.item_types))
        case inspect.DictType():
            return st.dictionaries(_values(kind.key_type, depth), _values(kind.value_type, depth + 1), max_size=2)
        case inspect.UnionType():
            return st.one_of(*(_values(one, depth) for one in kind.types))
    raise AssertionError(f"no strategy for {kind}")


@pytest.mark.parametrize("type_", REGISTERED, ids=lambda type_: type_.__name__)
def test_what_is_written_reads_back(type_: type) -> None:
    decoder = msgspec.msgpack.Decoder(type_)

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(values(type_))
    def check(value: object) -> None:
        assert decoder.decode(msgspec.msgpack.encode(value)) == value

    check()


ids = st.sampled_from(["a", "b", "c"])
services = st.builds(
    lambda id_, name, version, port: Service(
        id=id_,
        spec=ServiceSpec(
            name=name,
            task_template=TaskSpec(container_spec=ContainerSpec(image=f"i{version}")),
            endpoint_spec=EndpointSpec(ports=(PortConfig(target_port=80, published_port=port),)) if port else None,
        ),
        spec_version=version,
    ),
    ids,
    st.sampled_from(["web", "WEB", "api"]),
    st.integers(1, 14),
    st.sampled_from([0, 80, 81]),
)
tasks = st.builds(
    lambda id_, service, version: Task(id=id_, service_id=service, spec_version=version), ids, ids, st.just(1)
)
addresses = st.sampled_from(["10.0.0.2/24", "10.0.0.3/24"])
actions = st.one_of(
    st.builds(Create, object=services | tasks | st.builds(Node, id=ids)),
    st.builds(Create, object=st.builds(Network, id=ids, spec=st.builds(NetworkSpec, name=st.sampled_from(["n", "N"])))),
    st.builds(Replace, object=services),
    st.builds(Remove, kind=st.sampled_from(["service", "task", "node", "network"]), id=ids),
    st.builds(
        PatchTask,
        id=ids,
        desired_state=st.none() | st.sampled_from(TaskState),
        status=st.none() | st.builds(TaskStatus, state=st.sampled_from(TaskState)),
        node_id=st.none() | ids,
        attachments=st.none() | st.builds(lambda one: (Attachment(network_id="n", addresses=(one,)),), addresses),
    ),
    st.builds(
        PatchService,
        id=ids,
        spec_version=st.integers(1, 3),
        endpoint=st.none()
        | st.builds(lambda one: Endpoint(virtual_ips=(VirtualIP(network_id="n", address=one),)), addresses),
        update_status=st.none() | st.builds(UpdateStatus, state=st.sampled_from(UpdateState)),
    ),
    st.builds(PatchNode, id=ids, status=st.builds(NodeStatus, state=st.sampled_from(NodeState))),
)
histories = st.lists(st.lists(actions, min_size=1, max_size=3), max_size=25)


def contents(store: Store) -> dict[tuple[str, str], StoreObject]:
    return {(type(value).__name__, value.id): value for value in store._tables.everything()}


def indexes(store: Store) -> dict[str, dict[str, dict[str, set[str]]]]:
    return {
        kind: {name: {key: set(ids_) for key, ids_ in index.items()} for name, index in table._indexes.items()}
        for kind, table in store._tables._by_kind.items()
    }


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories, st.integers(0, 25))
def test_a_snapshot_and_the_rest_say_the_same_as_the_whole_history(history: list[list[Action]], cut: int) -> None:
    whole, restored = Store(ManualClock()), Store(ManualClock())
    entries = [msgspec.msgpack.encode(LogEntry(actions=tuple(group), at_ns=n)) for n, group in enumerate(history)]
    results = [whole.apply(index, entry) for index, entry in enumerate(entries[:cut], 1)]
    restored.restore(list(whole.snapshot()))
    for index, entry in enumerate(entries[cut:], cut + 1):
        results.append(whole.apply(index, entry))
        assert str(restored.apply(index, entry)) == str(results[-1])
    assert contents(restored) == contents(whole)
    assert indexes(restored) == indexes(whole)
    assert restored.view.events() == whole.view.events()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories)
def test_an_entry_applies_whole_or_not_at_all(history: list[list[Action]]) -> None:
    store = Store(ManualClock())
    for index, group in enumerate(history, 1):
        before, before_indexes = contents(store), indexes(store)
        result = store.apply(index, msgspec.msgpack.encode(LogEntry(actions=tuple(group), at_ns=index)))
        if isinstance(result, Exception):
            assert contents(store) == before
            assert indexes(store) == before_indexes
