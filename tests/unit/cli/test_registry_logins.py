import base64
import json

import pytest

from shoal.cli.registry_logins import AUTH_HEADER, Logins, read_logins
from shoal.errors import InvalidArgument, ShoalError

BOB = base64.b64encode(b"bob:se:cret").decode()


def sent(config, image, helper=lambda program, key: ""):
    header = Logins(config, helper, "config.json").headers(image).get(AUTH_HEADER)
    return json.loads(base64.urlsafe_b64decode(header)) if header else None


def test_what_login_has_kept_in_the_file():
    config = {"auths": {"registry:5000": {"auth": BOB}, "https://index.docker.io/v1/": {"auth": BOB}}}
    kept = {"username": "bob", "password": "se:cret"}
    assert sent(config, "registry:5000/web:1") == {**kept, "serveraddress": "registry:5000"}
    assert sent(config, "busybox") == {**kept, "serveraddress": "https://index.docker.io/v1/"}
    assert sent(config, "other:5000/web") is None
    assert sent({}, "busybox") is None


def test_keys_of_older_files_have_schemes_and_paths():
    assert sent({"auths": {"https://registry:5000/v1/": {"auth": BOB}}}, "registry:5000/web")["username"] == "bob"


def test_a_token_goes_instead_of_a_password():
    config = {"auths": {"registry:5000": {"identitytoken": "t0"}}}
    assert sent(config, "registry:5000/web") == {"identitytoken": "t0", "serveraddress": "registry:5000"}


def test_helpers_come_before_the_file_and_one_of_the_registry_before_the_store():
    asked = []

    def helper(program, key):
        asked.append((program, key))
        return '{"Username": "<token>", "Secret": "t1"}' if key == "registry:5000" else ""

    config = {
        "auths": {"registry:5000": {}, "other:5000": {"auth": BOB}},
        "credHelpers": {"registry:5000": "vault"},
        "credsStore": "pass",
    }
    assert sent(config, "registry:5000/web", helper) == {"identitytoken": "t1", "serveraddress": "registry:5000"}
    assert sent(config, "other:5000/web", helper) is None
    assert asked == [("docker-credential-vault", "registry:5000"), ("docker-credential-pass", "other:5000")]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"auths": {"registry:5000": {"auth": "&&"}}}, "config.json: auths: registry:5000: cannot be read"),
        ({"auths": {"registry:5000": {"auth": 7}}}, "config.json: auths: registry:5000: cannot be read"),
        ({"auths": {"registry:5000": ["bob"]}}, "config.json: auths: registry:5000: cannot be read"),
        ({"auths": ["registry:5000"]}, "config.json: auths: is no object"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(config, text):
    with pytest.raises(InvalidArgument, match=text):
        sent(config, "registry:5000/web")


def test_a_helper_that_answers_otherwise_is_named():
    with pytest.raises(ShoalError, match=r"docker-credential-odd .* gave no credentials"):
        sent({"credsStore": "odd"}, "registry:5000/web", lambda program, key: "hello")


def test_the_file_is_where_docker_has_it(tmp_path):
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    assert read_logins(environment).headers("busybox") == {}
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidArgument, match=f"{tmp_path}/config.json: .* name another folder by DOCKER_CONFIG"):
        read_logins(environment)


def test_helpers_are_programs(tmp_path, monkeypatch):
    helper = tmp_path / "docker-credential-test"
    lines = (
        "#!/bin/sh",
        "read server",
        """[ "$1 $server" = "get registry:5000" ] && echo '{"Username": "bob", "Secret": "x"}' && exit""",
        '[ "$server" = broken:5000 ] && echo locked && exit 1',
        "echo credentials not found in native keychain; exit 1",
    )
    helper.write_text("\n".join(lines))
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "test", "credHelpers": {"absent:5000": "absent"}}')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    logins = read_logins({"DOCKER_CONFIG": str(tmp_path)})
    assert json.loads(base64.urlsafe_b64decode(logins.headers("registry:5000/web")[AUTH_HEADER]))["password"] == "x"
    assert logins.headers("other:5000/web") == {}
    with pytest.raises(ShoalError, match="docker-credential-test gave no credentials for broken:5000: locked"):
        logins.headers("broken:5000/web")
    with pytest.raises(ShoalError, match=r"docker-credential-absent, which .* names for absent:5000, cannot be asked"):
        logins.headers("absent:5000/web")
