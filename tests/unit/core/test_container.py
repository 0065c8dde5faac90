"""From a task to its container; placeholders (docker-swarm.md 4.1, 4.12)."""

from __future__ import annotations

import pytest

from shoal.core.container import container_config, task_name
from shoal.errors import InvalidArgument
from shoal.model.base import replace
from shoal.model.container_spec import ContainerSpec, Driver, Mount, VolumeOptions
from shoal.model.objects import NodeDescription, Revision, Task
from shoal.model.specs import Limit, Platform, ResourceRequirements, ServiceSpec, TaskSpec

DESCRIPTION = NodeDescription(hostname="h1", platform=Platform(architecture="x86_64", os="linux"))
TASK = Task(id="taskid", service_id="sid", spec_version=1, slot=3, node_id="nid")


def config(task: Task = TASK, resources: ResourceRequirements | None = None, **container: object):  # type: ignore[no-untyped-def]
    spec = ServiceSpec(
        name="web",
        labels={"tier": "front"},
        task_template=TaskSpec(container_spec=ContainerSpec(image="i", **container), resources=resources),  # type: ignore[arg-type]
    )
    revision = Revision(id="sid.1", service_id="sid", spec_version=1, spec=spec)
    return container_config(task, revision, "nid", DESCRIPTION)


def test_names() -> None:
    assert task_name("web", TASK) == "web.3.taskid"
    assert task_name("web", replace(TASK, slot=0)) == "web.nid.taskid"


def test_docker_labels_win_over_the_users() -> None:
    labels = config(labels={"mine": "1", "com.docker.swarm.task.id": "forged"}).labels
    assert labels == {
        "mine": "1",
        "com.docker.swarm.task": "",
        "com.docker.swarm.task.id": "taskid",
        "com.docker.swarm.task.name": "web.3.taskid",
        "com.docker.swarm.node.id": "nid",
        "com.docker.swarm.service.id": "sid",
        "com.docker.swarm.service.name": "web",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{.Service.ID}} {{ .Service.Name }}", "sid web"),
        ("{{.Service.Labels.tier}}", "front"),
        ('{{index .Service.Labels "tier"}}|{{index .Service.Labels "none"}}', "front|"),
        ("{{.Node.ID}}-{{.Node.Hostname}}", "nid-h1"),
        ("{{.Node.Platform.Architecture}}/{{.Node.Platform.OS}}", "x86_64/linux"),
        ("{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}", "taskid web.3.taskid 3"),
        ("{{- .Task.Slot -}}", "3"),
        ("plain } text {", "plain } text {"),
    ],
)
def test_placeholders(text: str, expected: str) -> None:
    assert config(env=(f"A={text}",)).env == (f"A={expected}",)
    assert config(hostname=text).hostname == expected


def test_placeholders_of_mounts() -> None:
    driver = Driver(name="local", options={"o": "{{.Node.ID}}"})
    options = VolumeOptions(labels={"l": "{{.Task.Slot}}"}, driver_config=driver)
    mount = Mount(type="volume", source="v{{.Task.Slot}}", target="/{{.Service.Name}}", volume_options=options)
    found = config(mounts=(mount,)).mounts[0]
    assert (found.source, found.target) == ("v3", "/web")
    assert found.volume_options is not None
    assert found.volume_options.labels == {"l": "3"}
    assert found.volume_options.driver_config == Driver(name="local", options={"o": "nid"})


def test_the_rest_is_left_alone() -> None:
    found = config(args=("{{.Task.Slot}}",), labels={"x": "{{.Task.Slot}}"})
    assert (found.command, found.labels["x"]) == (("{{.Task.Slot}}",), "{{.Task.Slot}}")


def test_a_slotless_task_is_known_by_its_node() -> None:
    assert config(replace(TASK, slot=0), hostname="{{.Task.Slot}}").hostname == "nid"


def test_what_stands_for_nothing_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"Env: .*\.Nope stands for nothing"):
        config(env=("A={{.Nope}}",))


def test_limits_grace_and_commands() -> None:
    limits = ResourceRequirements(limits=Limit(nano_cpus=5, memory_bytes=6, pids=7))
    found = config(resources=limits, stop_grace_period=1_500_000_000, command=("a",), args=("b",))
    assert (found.nano_cpus, found.memory_bytes, found.pids_limit) == (5, 6, 7)
    assert (found.stop_timeout_seconds, found.entrypoint, found.command) == (1.5, ("a",), ("b",))
    assert (found.log_driver, config().stop_timeout_seconds) == ("json-file", None)
