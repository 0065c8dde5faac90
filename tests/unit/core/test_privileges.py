"""Devices and privileges of services."""

from __future__ import annotations

import pytest

from shoal.core.privileges import Privileges, check_allowed, parse_allowed, parse_device, parse_privileges
from shoal.errors import Forbidden, InvalidArgument
from shoal.model.container import Device

FUSE = Device(source="/dev/fuse", target="/dev/fuse")


def test_labels() -> None:
    assert parse_privileges({}) == Privileges()
    labels = {"shoal.privileged": "true", "shoal.devices": "/dev/fuse, /dev/a:/dev/b:r", "shoal.shm-size": "1g"}
    assert parse_privileges(labels) == Privileges(
        privileged=True,
        devices=(FUSE, Device(source="/dev/a", target="/dev/b", permissions="r")),
        shm_bytes=1 << 30,
    )
    assert parse_device("/dev/a:rw") == Device(source="/dev/a", target="/dev/a", permissions="rw")


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({"shoal.privileged": "yes"}, 'service label shoal.privileged: "yes" is neither true nor false'),
        ({"shoal.devices": "fuse"}, 'service label shoal.devices: "fuse": write /dev/NAME'),
        ({"shoal.devices": "/dev/a:/dev/b:x"}, "invalid mode for device: x"),
        ({"shoal.shm-size": "lots"}, "service label shoal.shm-size"),
        ({"shoal.pid-mode": "service:web"}, 'service label shoal.pid-mode: "service:web" is none of private, host'),
        ({"shoal.ipc-mode": "host", "shoal.shm-size": "1m"}, "/dev/shm is the node's with shoal.ipc-mode=host"),
    ],
)
def test_what_cannot_be_read(labels: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_privileges(labels)
    assert text in caught.value.message


def test_a_swarm_allows_nothing_until_it_is_told_to() -> None:
    everything = Privileges(privileged=True, devices=(FUSE,))
    check_allowed(Privileges(shm_bytes=1), parse_allowed({}))
    with pytest.raises(Forbidden, match=r"shoal\.privileged: this swarm does not allow it"):
        check_allowed(everything, parse_allowed({}))
    with pytest.raises(Forbidden, match=r"shoal swarm update --allow devices,privileged"):
        check_allowed(everything, parse_allowed({"shoal.allow": "privileged"}))
    check_allowed(everything, parse_allowed({"shoal.allow": "privileged, devices"}))
    shared = parse_privileges({"shoal.pid-mode": "host", "shoal.ipc-mode": "host"})
    with pytest.raises(Forbidden, match=r"shoal\.ipc-mode: .* --allow host-ipc,host-pid"):
        check_allowed(shared, parse_allowed({"shoal.allow": "host-pid"}))
    check_allowed(shared, parse_allowed({"shoal.allow": "host-pid,host-ipc"}))
    with pytest.raises(InvalidArgument, match='"root" is none of devices, host-ipc, host-pid, privileged'):
        parse_allowed({"shoal.allow": "root"})
