"""Secrets and configs as they are stored (docker-swarm.md 3.7)."""

from __future__ import annotations

from shoal.core.validate.names import validate_payload_name
from shoal.errors import InvalidArgument, NotBuilt
from shoal.language.golang_template import TemplateError, check
from shoal.model.container_spec import Driver
from shoal.model.specs import ConfigSpec, SecretSpec

MAX_SECRET_BYTES = 512_000
MAX_CONFIG_BYTES = 1_024_000


def validate_secret(spec: SecretSpec) -> None:
    """Check a new secret: 1 to 511,999 bytes. Raises InvalidArgument, NotBuilt (a driver)."""
    validate_payload_name(spec.name)
    if spec.driver is not None and spec.driver.name:
        raise NotBuilt("secret drivers are not supported: give the secret's data")
    _check_templating(spec.templating)
    if not 0 < len(spec.data) < MAX_SECRET_BYTES:
        raise InvalidArgument(f"secret data must be larger than 0 and less than {MAX_SECRET_BYTES} bytes")
    _check_template(f"secret {spec.name}", spec.templating, spec.data)


def validate_config(spec: ConfigSpec) -> None:
    """Check a new config: 1 to 1,023,999 bytes. Raises InvalidArgument."""
    validate_payload_name(spec.name)
    _check_templating(spec.templating)
    if not 0 < len(spec.data) < MAX_CONFIG_BYTES:
        raise InvalidArgument(f"config data must be larger than 0 and less than {MAX_CONFIG_BYTES} bytes")
    _check_template(f"config {spec.name}", spec.templating, spec.data)


def _check_templating(driver: Driver | None) -> None:
    if driver is not None and driver.name not in ("", "golang"):
        raise InvalidArgument(f'invalid template driver "{driver.name}": use golang')


def _check_template(where: str, driver: Driver | None, data: bytes) -> None:
    """Refuse at once what no task could fill in."""
    if driver is None or driver.name != "golang":
        return
    try:
        check(data.decode(errors="surrogateescape"))
    except TemplateError as error:
        raise InvalidArgument(f"{where}: its data is no template: {error}") from None
