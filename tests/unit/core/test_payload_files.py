"""From secrets and configs to files."""

from __future__ import annotations

import pytest

from shoal.core.payload_files import Payloads, container_files
from shoal.core.template import Context
from shoal.errors import InvalidArgument, NotFound
from shoal.model.container_spec import ConfigReference, ContainerSpec, Driver, ReferenceFileTarget, SecretReference
from shoal.model.objects import Config, Secret
from shoal.model.specs import ConfigSpec, SecretSpec

CONTEXT = Context(
    service_id="sid", service_name="web", service_labels={}, node_id="nid", node_hostname="h1",
    node_architecture="x86_64", node_os="linux", task_id="tid", task_name="web.1.tid", task_slot="1",
)  # fmt: skip
GOLANG = Driver(name="golang")


def files_of(config: bytes, templating: Driver | None = GOLANG, **target: object):  # type: ignore[no-untyped-def]
    asked = ReferenceFileTarget(**{"name": "app.conf", "uid": "0", "gid": "0", "mode": 0o444, **target})  # type: ignore[arg-type]
    spec = ContainerSpec(
        image="i",
        env=("MODE=fast",),
        secrets=(
            SecretReference(
                secret_id="s1", secret_name="db_v1", file=ReferenceFileTarget(name="db", uid="33", gid="34", mode=0o400)
            ),
        ),
        configs=(ConfigReference(config_id="c1", config_name="app", file=asked),),
    )
    payloads = Payloads(
        secrets={"s1": Secret(id="s1", spec=SecretSpec(name="db_v1", data=b"geheim"))},
        configs={"c1": Config(id="c1", spec=ConfigSpec(name="app", data=config, templating=templating))},
    )
    return container_files(spec, payloads, CONTEXT)


def test_secrets_lie_in_their_directory_and_configs_at_the_root() -> None:
    secret, config = files_of(b"{{x}}", templating=None)
    assert (secret.path, secret.content, secret.uid, secret.gid, secret.mode) == (
        "/run/secrets/db", b"geheim", 33, 34, 0o400,
    )  # fmt: skip
    assert (config.path, config.content, config.mode) == ("/app.conf", b"{{x}}", 0o444)


@pytest.mark.parametrize(
    ("name", "path"), [("/etc/x.conf", "/etc/x.conf"), ("a/../b", "/b"), ("../../x", "/x"), ("/a//b/./c", "/a/b/c")]
)
def test_targets(name: str, path: str) -> None:
    assert files_of(b"", name=name)[1].path == path


def test_a_template_knows_task_environment_secrets_and_configs() -> None:
    text = b'{{.Service.Name}} {{.Node.Hostname}} {{.Task.Slot}} {{env "MODE"}} {{secret "db"}} {{config "app.conf"}}'
    assert files_of(text)[1].content == b"web h1 1 fast geheim " + text
    assert files_of(b"\xff{{.Task.ID}}\x00")[1].content == b"\xfftid\x00", "bytes that are no text pass through"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{{secret "none"}}', 'config app: failed to expand its template: secret "none": the service has no secret'),
        (b"{{.Nope}}", ".Nope stands for nothing"),
    ],
)
def test_a_bad_template_is_named_and_nothing_secret_with_it(text: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        files_of(text)
    assert reason in refused.value.message
    assert "geheim" not in refused.value.message


def test_bad_owners_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r'config app: File\.UID "bob" is no number'):
        files_of(b"", uid="bob")


def test_what_the_node_does_not_have_is_named() -> None:
    spec = ContainerSpec(image="i", secrets=(SecretReference(secret_id="s9", secret_name="gone"),))
    with pytest.raises(NotFound, match=r"secret gone \(s9\) not found"):
        container_files(spec, Payloads(), CONTEXT)
