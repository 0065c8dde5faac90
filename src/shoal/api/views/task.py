"""Tasks as Docker's JSON."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shoal.api.responses import encode
from shoal.api.views.network import attached_network_view
from shoal.api.views.service import iteration_view, port_view, task_spec_view
from shoal.api.views.shared import Json, meta_view, plain, time_text
from shoal.core.networks import PREDEFINED
from shoal.model.objects import Network, Task
from shoal.store.view import View


class TaskViews:
    """Views of tasks over one view of the store; the spec of a revision is encoded once for all its tasks."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._specs: dict[tuple[str, int], msgspec.Raw] = {}
        self._networks: dict[str, Json] = {}
        self._network_versions: dict[str, int] = {}

    def prepare(self, tasks: Iterable[Task]) -> None:
        """Read what the views of `tasks` need from the store, so that they may be made after it has gone on."""
        for task in tasks:
            self._spec(task)
            for attachment in task.attachments:
                self._network(attachment.network_id)

    def network_versions(self, task: Task) -> tuple[int, ...]:
        """Return the versions of the networks that a task's view shows; `prepare` has read them."""
        return tuple(self._network_versions.get(attachment.network_id, 0) for attachment in task.attachments)

    def of(self, task: Task) -> Json:
        """Return a task."""
        view = meta_view(task.id, task.meta)
        view["Labels"] = {}
        view["Spec"] = self._spec(task)
        view["ServiceID"] = task.service_id
        if task.slot:
            view["Slot"] = task.slot
        if task.node_id:
            view["NodeID"] = task.node_id
        view["Status"] = _status_view(task)
        view["DesiredState"] = task.desired_state.word
        if task.attachments:
            view["NetworksAttachments"] = [
                {"Network": self._network(attachment.network_id), "Addresses": list(attachment.addresses)}
                for attachment in task.attachments
            ]
        if task.generic_resources:
            view["GenericResources"] = [plain(resource) for resource in task.generic_resources]
        if task.job_iteration is not None:
            view["JobIteration"] = iteration_view(task.job_iteration)
        view["Volumes"] = None
        return view

    def _spec(self, task: Task) -> msgspec.Raw:
        key = (task.service_id, task.spec_version)
        found = self._specs.get(key)
        if found is None:
            revision = self._view.revision(*key)
            spec = task_spec_view(revision.spec.task_template) if revision is not None else {"ForceUpdate": 0}
            found = self._specs[key] = msgspec.Raw(encode(spec))
        return found

    def _network(self, network_id: str) -> Json:
        found = self._networks.get(network_id)
        if found is None:
            network = self._view.get(Network, network_id) or PREDEFINED.get(network_id)
            found = attached_network_view(network) if network is not None else {"ID": network_id}
            self._networks[network_id] = found
            self._network_versions[network_id] = network.meta.version if network is not None else 0
        return found


def _status_view(task: Task) -> Json:
    status = task.status
    view: Json = {"Timestamp": time_text(status.timestamp_ns), "State": status.state.word}
    if status.message:
        view["Message"] = status.message
    if status.err:
        view["Err"] = status.err
    if status.container is not None:
        view["ContainerStatus"] = {
            "ContainerID": status.container.container_id,
            "PID": status.container.pid,
            "ExitCode": status.container.exit_code,
        }
    view["PortStatus"] = {"Ports": [port_view(port) for port in status.host_ports]} if status.host_ports else {}
    return view
