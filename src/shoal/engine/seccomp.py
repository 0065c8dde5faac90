"""The default seccomp profile of containers, cut to the capabilities a container holds.

The table of system calls is data (`seccomp.json`); this turns it into the `linux.seccomp` object of an OCI spec.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from shoal.errors import InvalidArgument

_EPERM = 1
_ENOSYS = 38
_AF_VSOCK = 40
_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "ppc64le": ["SCMP_ARCH_PPC64LE"],
    "s390x": ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
    "riscv64": ["SCMP_ARCH_RISCV64"],
}


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files("shoal.engine").joinpath("seccomp.json").read_text("utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


@functools.lru_cache(maxsize=64)
def default_profile(capabilities: frozenset[str], machine: str, foreign_abis: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the profile for a container that holds `capabilities` on a `machine` (`x86_64`, `aarch64`…).

    `foreign_abis` are the other ABIs of the kernel, by libseccomp's names.
    """
    table = _table()
    names = {*table["allow"], *table["by_architecture"].get(machine, ())}
    for capability, calls in table["by_capability"].items():
        if capability in capabilities:
            names.update(calls)
    rules: list[dict[str, Any]] = [{"names": sorted(names), "action": "SCMP_ACT_ALLOW"}]
    rules += [_allow_if("personality", 0, value, "SCMP_CMP_EQ") for value in table["personality_allowed"]]
    rules.append(_allow_if("socket", 0, _AF_VSOCK, "SCMP_CMP_NE"))
    if "CAP_SYS_ADMIN" not in capabilities:
        # threads and processes yes, new namespaces no; clone3 hides its flags, so callers must fall back to clone
        masked = _allow_if(
            "clone", 1 if machine == "s390x" else 0, table["clone_namespace_flags"], "SCMP_CMP_MASKED_EQ"
        )
        masked["args"][0]["valueTwo"] = 0
        rules.append(masked)
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": [*_ARCHITECTURES.get(machine, []), *foreign_abis],
        "syscalls": rules,
    }


def _allow_if(name: str, index: int, value: int, operator: str) -> dict[str, Any]:
    return {
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": index, "value": value, "op": operator}],
    }


def custom_profile(text: str, capabilities: frozenset[str], machine: str) -> dict[str, Any]:
    """Turn a profile in Docker's JSON form into the OCI form.

    Rules with `includes` or `excludes` count when the container's capabilities and the machine fit.

    Raises:
        InvalidArgument: the text is no such profile.
    """
    try:
        profile = json.loads(text)
        rules = [_convert_rule(rule) for rule in profile.get("syscalls") or () if _counts(rule, capabilities, machine)]
        architectures = profile.get("architectures") or _ARCHITECTURES.get(machine, [])
        result = {"defaultAction": profile["defaultAction"], "architectures": architectures, "syscalls": rules}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            f"Decoding seccomp profile failed: {error}; give a profile in Docker's JSON form"
        ) from None
    if profile.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = profile["defaultErrnoRet"]
    return result


def _counts(rule: dict[str, Any], capabilities: frozenset[str], machine: str) -> bool:
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    architecture = names.get(machine, machine)
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if architecture in (excludes.get("arches") or ()):
        return False
    if any(capability not in capabilities for capability in includes.get("caps") or ()):
        return False
    return not any(capability in capabilities for capability in excludes.get("caps") or ())


def _convert_rule(rule: dict[str, Any]) -> dict[str, Any]:
    names = list(rule.get("names") or [rule["name"]])
    converted: dict[str, Any] = {"names": names, "action": rule["action"]}
    if rule.get("errnoRet") is not None:
        converted["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        converted["args"] = rule["args"]
    return converted
