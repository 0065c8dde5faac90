"""What `docker login` has kept for registries, as clients send it: docker's config.json and credential helpers."""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shoal.core.reference import DEFAULT_REGISTRY, parse_reference
from shoal.errors import InvalidArgument, ShoalError

AUTH_HEADER = "X-Registry-Auth"
CONFIG_VARIABLE = "DOCKER_CONFIG"
CONFIG_FOLDER = "~/.docker"
CONFIG_NAME = "config.json"
# under which docker keeps what belongs to docker.io
DEFAULT_KEY = "https://index.docker.io/v1/"
HELPER_SECONDS = 30.0
NOT_FOUND = "credentials not found"
# the name by which a helper says that its secret is a token
TOKEN_USER = "<token>"  # noqa: S105 - no secret

Json = Mapping[str, Any]
RunHelper = Callable[[str, str], str]


class Logins:
    """Credentials by registry.

    Args:
        config: what docker's config.json says.
        run_helper: asks a credential helper, by its name, for a registry; returns what it prints, empty if it has none.
        place: of the file, for errors.
    """

    def __init__(self, config: Json, run_helper: RunHelper, place: str) -> None:
        self._config = config
        self._run_helper = run_helper
        self._place = place

    def headers(self, image: str) -> dict[str, str]:
        """Return the header that carries what belongs to an image's registry; none where nobody has logged in.

        Raises:
            ShoalError: the file or a helper cannot be used.
        """
        registry = parse_reference(image).registry
        found = self._find(DEFAULT_KEY if registry == DEFAULT_REGISTRY else registry)
        return {AUTH_HEADER: base64.urlsafe_b64encode(json.dumps(found).encode()).decode()} if found else {}

    def _find(self, key: str) -> dict[str, str]:
        helper = self._section("credHelpers").get(key) or self._config.get("credsStore")
        if helper:
            return self._ask(str(helper), key)
        kept = self._section("auths")
        entry = kept.get(key) or next((kept[name] for name in kept if _host_of(name) == _host_of(key)), None)
        return self._read_entry(key, entry) if entry else {}

    def _section(self, name: str) -> Json:
        section = self._config.get(name) or {}
        if not isinstance(section, Mapping):
            raise InvalidArgument(f"{self._place}: {name}: is no object; see `docker login`")
        return section

    def _ask(self, helper: str, key: str) -> dict[str, str]:
        told = self._run_helper(f"docker-credential-{helper}", key)
        if not told:
            return {}
        try:
            answer = json.loads(told)
            user, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            raise ShoalError(f"docker-credential-{helper} (named in {self._place}) gave no credentials") from None
        if user == TOKEN_USER:
            return {"identitytoken": secret, "serveraddress": key}
        return {"username": user, "password": secret, "serveraddress": key}

    def _read_entry(self, key: str, entry: Any) -> dict[str, str]:
        try:
            found = {name: entry[name] for name in ("username", "password", "identitytoken") if entry.get(name)}
            if entry.get("auth"):
                user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
                # docker's own file ends what it has packed with zeros
                found |= {"username": user, "password": password.strip("\0")}
        except (AttributeError, TypeError, binascii.Error, UnicodeDecodeError):
            raise InvalidArgument(
                f"{self._place}: auths: {key}: cannot be read; log in again by `docker login`"
            ) from None
        return {**found, "serveraddress": key} if found else {}


def _host_of(name: str) -> str:
    return name.removeprefix("https://").removeprefix("http://").partition("/")[0]


def read_logins(environment: Mapping[str, str] = os.environ) -> Logins:
    """Read docker's config.json; without one nobody has logged in.

    Raises:
        InvalidArgument: it is no JSON, or cannot be read.
    """
    place = Path(environment.get(CONFIG_VARIABLE) or CONFIG_FOLDER).expanduser() / CONFIG_NAME
    try:
        config = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        config = {}
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{place}: {error}; mend it, or name another folder by {CONFIG_VARIABLE}") from None
    if not isinstance(config, dict):
        raise InvalidArgument(f"{place}: is no JSON object; see `docker login`")
    return Logins(config, _run_helper, str(place))


def _run_helper(program: str, key: str) -> str:
    try:
        done = subprocess.run(
            [program, "get"], input=key, capture_output=True, text=True, timeout=HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ShoalError(f"{program}, which docker's configuration names for {key}, cannot be asked: {error}") from None
    if done.returncode == 0:
        return done.stdout
    said = (done.stdout + done.stderr).strip()
    if NOT_FOUND in said:
        return ""
    raise ShoalError(f"{program} gave no credentials for {key}: {said or f'it ended with {done.returncode}'}")
