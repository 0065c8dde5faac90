"""Driver options of one place on a network (`--network name=N,driver-opt=K=V`): what they mean for its link. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from shoal.errors import InvalidArgument, NotBuilt
from shoal.model.netstate import LinkOptions

INTERFACE_OPTION = "com.docker.network.endpoint.ifname"
SYSCTLS_OPTION = "com.docker.network.endpoint.sysctls"
# stands for the link's name, as the fourth word of a setting
INTERFACE_WORD = "IFNAME"
SETTING_WORDS = 5
_INTERFACE = re.compile(r"(?!\.{1,2}$)[^\s/:%]{1,15}")


def parse_link_options(options: Mapping[str, str], field: str) -> LinkOptions:
    """Return what driver options say of a link; those of other drivers say nothing, as in Docker.

    Raises:
        InvalidArgument: a value that is none.
    """
    interface, sysctls = "", []
    for name, value in options.items():
        if name == INTERFACE_OPTION:
            interface = value
        elif name == SYSCTLS_OPTION:
            sysctls = [_sysctl(part, field) for part in value.split(",")]
    if interface == "lo" or (INTERFACE_OPTION in options and not _INTERFACE.fullmatch(interface)):
        raise InvalidArgument(
            f'{field}: {INTERFACE_OPTION}: "{interface}" cannot be a link\'s name: 1 to 15 characters without spaces, '
            "slashes, colons and %"
        )
    return LinkOptions(interface=interface, sysctls=tuple(sysctls))


def ignored_options(options: Mapping[str, str], field: str) -> Iterator[str]:
    """Yield for each option that means nothing here what to tell of it."""
    for name in options:
        if name not in (INTERFACE_OPTION, SYSCTLS_OPTION):
            yield (
                f"{field}: driver option {name} means nothing here; there are {INTERFACE_OPTION} and {SYSCTLS_OPTION}"
            )


def refuse_ignored_options(options: Mapping[str, str], field: str) -> None:
    """Refuse options that mean nothing here, where nobody can be warned of them. Raises NotBuilt."""
    for text in ignored_options(options, field):
        raise NotBuilt(f"{text}: leave it out")


def _sysctl(text: str, field: str) -> tuple[str, str]:
    """Read `net.ipv4.conf.IFNAME.log_martians=1`; returns the path below /proc/sys and the value."""
    name, equals, value = text.strip().partition("=")
    words = name.split(".")
    is_setting = len(words) == SETTING_WORDS and words[0] == "net" and words[3].upper() == INTERFACE_WORD
    if not is_setting or not equals or not all(re.fullmatch(r"\w+", word, re.ASCII) for word in words):
        raise InvalidArgument(
            f'{field}: {SYSCTLS_OPTION}: "{text}" is no setting of a link: write '
            f"net.ipv4.conf.{INTERFACE_WORD}.NAME=VALUE"
        )
    # the docker command writes all of it in small letters
    return "/".join((*words[:3], INTERFACE_WORD, words[4])), value


def refuse_same_interfaces(links: Iterable[LinkOptions]) -> None:
    """Refuse two links of one name in a container. Raises InvalidArgument."""
    seen = set()
    for link in links:
        if link.interface and link.interface in seen:
            raise InvalidArgument(f"{INTERFACE_OPTION}: two links of a container cannot both be {link.interface}")
        seen.add(link.interface)
