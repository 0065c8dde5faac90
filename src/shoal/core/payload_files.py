"""From secrets and configs to files in a container: where, whose, with which content (docker-swarm.md 4.12).

Knows neither nodes nor disks. What is said in an error names references, never content.
"""

from __future__ import annotations

from shoal.core.payload_versions import config_key, secret_key
from shoal.core.template import Context
from shoal.errors import InvalidArgument, NotBuilt, NotFound
from shoal.language.golang_template import TemplateError, Values, render
from shoal.model.base import Struct
from shoal.model.container import FileInContainer
from shoal.model.container_spec import ContainerSpec, ReferenceFileTarget
from shoal.model.objects import Config, Secret

SECRETS_DIRECTORY = "/run/secrets"
CONFIGS_DIRECTORY = "/"
MODE_BITS = 0o7777
ANY_BYTES = "surrogateescape"


class Payloads(Struct):
    """The secrets and configs a node was given, by the ids that nodes call their versions."""

    secrets: dict[str, Secret] = {}
    configs: dict[str, Config] = {}


def missing_payloads(spec: ContainerSpec, payloads: Payloads) -> tuple[str, ...]:
    """Return what of a container's secrets and configs is not among `payloads`, in words that name each."""
    secrets = [
        f"secret {each.secret_name} ({each.secret_id})"
        for each in spec.secrets
        if secret_key(each) not in payloads.secrets
    ]
    configs = [
        f"config {each.config_name} ({each.config_id})"
        for each in spec.configs
        if config_key(each) not in payloads.configs
    ]
    return (*secrets, *configs)


def container_files(spec: ContainerSpec, payloads: Payloads, context: Context) -> tuple[FileInContainer, ...]:
    """Return the files that a container's secrets and configs become.

    Raises:
        NotFound: a secret or config that is not among `payloads`.
        InvalidArgument: a bad owner or template.
        NotBuilt: a config that is no file.
    """
    missing = missing_payloads(spec, payloads)
    if missing:
        raise NotFound(f"{', '.join(missing)} not found: removed from the swarm, or never sent to this node")
    expander = _Expander(spec, payloads, context)
    files = []
    for secret in spec.secrets:
        if secret.file is None:
            raise InvalidArgument(f"ContainerSpec.Secrets: {secret.secret_name} has no File")
        found = payloads.secrets[secret_key(secret)]
        content = expander.content("secret", found)
        files.append(_file(f"secret {secret.secret_name}", secret.file, SECRETS_DIRECTORY, content))
    for config in spec.configs:
        if config.file is None:
            raise NotBuilt(f"ContainerSpec.Configs: {config.config_name} as Runtime (credential specs) is not built")
        content = expander.content("config", payloads.configs[config_key(config)])
        files.append(_file(f"config {config.config_name}", config.file, CONFIGS_DIRECTORY, content))
    return tuple(files)


class _Expander:
    """Gives payloads' contents, templates filled in. Inside them, others are known by the names of their files."""

    def __init__(self, spec: ContainerSpec, payloads: Payloads, context: Context) -> None:
        self._context = context
        self._environment = dict(line.partition("=")[::2] for line in spec.env)
        secrets, configs = payloads.secrets, payloads.configs
        self._secrets = {each.file.name: secrets[secret_key(each)].spec.data for each in spec.secrets if each.file}
        self._configs = {each.file.name: configs[config_key(each)].spec.data for each in spec.configs if each.file}

    def content(self, word: str, payload: Secret | Config) -> bytes:
        spec = payload.spec
        if spec.templating is None or spec.templating.name != "golang":
            return spec.data
        where = f"{word} {spec.name}"
        functions = {"secret": self._secret, "config": self._config, "env": self._env}
        try:
            # bytes that are no text pass through as they are
            text = spec.data.decode(errors=ANY_BYTES)
            return render(text, Values(self._context.tree(), functions)).encode(errors=ANY_BYTES)
        except TemplateError as error:
            raise InvalidArgument(f"{where}: failed to expand its template: {error}") from None

    def _env(self, name: str) -> str:
        # as Docker: a variable that is not set is empty
        return self._environment.get(name, "")

    def _secret(self, name: str) -> str:
        if name not in self._secrets:
            raise TemplateError(f'secret "{name}": the service has no secret with this target')
        return self._secrets[name].decode(errors=ANY_BYTES)

    def _config(self, name: str) -> str:
        if name not in self._configs:
            raise TemplateError(f'config "{name}": the service has no config with this target')
        return self._configs[name].decode(errors=ANY_BYTES)


def _file(where: str, target: ReferenceFileTarget, directory: str, content: bytes) -> FileInContainer:
    return FileInContainer(
        path=_absolute(target.name, directory),
        content=content,
        uid=_number(where, "UID", target.uid),
        gid=_number(where, "GID", target.gid),
        # what is asked for stands as asked: 0 is what nobody but root may read
        mode=target.mode & MODE_BITS,
    )


def _absolute(name: str, directory: str) -> str:
    path = name if name.startswith("/") else f"{directory}/{name}"
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _number(where: str, field: str, text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(1 << 32)) and int(text) < (1 << 32) - 1):
        raise InvalidArgument(f'{where}: File.{field} "{text}" is no number of a user or group')
    return int(text)
