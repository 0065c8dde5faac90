"""What becomes an event: what somebody asked for, and what Docker tells of; not the loops' own bookkeeping."""

from msgspec.structs import replace

from shoal.model.objects import Endpoint, Service, UpdateStatus
from shoal.model.specs import ServiceSpec
from shoal.store.apply import Change
from shoal.store.events import events_of

BEFORE = Service(id="s", spec=ServiceSpec(name="web"))


def told(after: Service, actor: str) -> list[tuple[str, dict[str, str]]]:
    events = events_of([Change(kind="service", id="s", old=BEFORE, new=after)], 1, 2, actor)
    return [(event.action, event.attributes) for event in events]


def test_an_address_that_the_allocator_gives_is_no_event():
    assert told(replace(BEFORE, endpoint=Endpoint(mode="vip")), actor="") == []


def test_a_request_that_changes_nothing_docker_names_is_one():
    assert told(replace(BEFORE, endpoint=Endpoint(mode="vip")), actor="uid:0") == [("update", {"name": "web"})]


def test_the_course_of_an_update_is_one():
    after = replace(BEFORE, update_status=UpdateStatus(state="updating"))
    assert told(after, actor="") == [("update", {"name": "web", "updatestate.new": "updating"})]
