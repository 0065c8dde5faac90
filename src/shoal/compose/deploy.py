"""`deploy` of a Compose service, and the older keys that say the same: mode, updates, resources, placement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal.compose.cursor import Cursor
from shoal.language.values import parse_bytes, parse_duration, parse_nano_cpus, parse_positive_duration

Json = dict[str, Any]
DEPLOY_KEYS = frozenset(
    {
        "mode", "replicas", "labels", "endpoint_mode", "update_config", "rollback_config", "resources",
        "restart_policy", "placement",
    }
)  # fmt: skip
_ROLLOUT_KEYS = frozenset({"parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order"})


def convert_deploy(spec: Json, deploy: Mapping[str, Cursor], service: Mapping[str, Cursor]) -> None:
    """Write what `deploy` says into a spec; `service` has the older keys. Raises InvalidArgument."""
    template = spec["TaskTemplate"]
    spec["Mode"] = _mode(deploy, service)
    for key, field in (("update_config", "UpdateConfig"), ("rollback_config", "RollbackConfig")):
        if key in deploy and deploy[key].value is not None:
            spec[field] = _rollout(deploy[key])
    # empty or not, as the docker command sends them
    template["Resources"] = _resources(deploy, service)
    template["Placement"] = _placement(deploy, service)
    if "restart_policy" in deploy and deploy["restart_policy"].value is not None:
        template["RestartPolicy"] = _restart_policy(deploy["restart_policy"])
    if "endpoint_mode" in deploy:
        mode = deploy["endpoint_mode"]
        if mode.text() not in {"vip", "dnsrr"}:
            raise mode.refusal("must be vip or dnsrr")
        spec["EndpointSpec"] = {"Mode": mode.text()}


def _mode(deploy: Mapping[str, Cursor], service: Mapping[str, Cursor]) -> Json:
    count = deploy.get("replicas") or service.get("scale")
    replicas = count.integer() if count is not None and count.value is not None else None
    if replicas is not None and replicas < 0 and count is not None:
        raise count.refusal("must not be negative")
    cursor = deploy.get("mode")
    mode = cursor.text() if cursor is not None and cursor.value is not None else "replicated"
    if mode in {"global", "global-job"}:
        if replicas is not None and count is not None:
            raise count.refusal(f"replicas can only be used with replicated or replicated-job mode, not {mode}")
        return {"Global": {}} if mode == "global" else {"GlobalJob": {}}
    if mode == "replicated":
        return {"Replicated": {} if replicas is None else {"Replicas": replicas}}
    if mode == "replicated-job":
        return {"ReplicatedJob": {} if replicas is None else {"MaxConcurrent": replicas, "TotalCompletions": replicas}}
    assert cursor is not None
    raise cursor.refusal("must be replicated, global, replicated-job or global-job")


def _rollout(cursor: Cursor) -> Json:
    fields = cursor.fields(_ROLLOUT_KEYS)
    config: Json = {"Parallelism": fields["parallelism"].integer() if "parallelism" in fields else 1}
    for key, field in (("delay", "Delay"), ("monitor", "Monitor")):
        if key in fields:
            config[field] = fields[key].parsed(parse_positive_duration)
    for key, field in (("failure_action", "FailureAction"), ("order", "Order")):
        if key in fields:
            config[field] = fields[key].text()
    if "max_failure_ratio" in fields:
        config["MaxFailureRatio"] = fields["max_failure_ratio"].number()
    return config


def _resources(deploy: Mapping[str, Cursor], service: Mapping[str, Cursor]) -> Json:
    limits: Json = {}
    reservations: Json = {}
    for key, target, field in (
        ("cpus", limits, "NanoCPUs"), ("mem_limit", limits, "MemoryBytes"), ("pids_limit", limits, "Pids"),
        ("mem_reservation", reservations, "MemoryBytes"),
    ):  # fmt: skip
        if key in service:
            target[field] = _amount(field, service[key])
    if "resources" in deploy:
        fields = deploy["resources"].fields(frozenset({"limits", "reservations"}))
        for key, target, known in (
            ("limits", limits, frozenset({"cpus", "memory", "pids"})),
            ("reservations", reservations, frozenset({"cpus", "memory", "generic_resources", "devices"})),
        ):
            given = fields[key].fields(known) if key in fields else {}
            for word, field in (("cpus", "NanoCPUs"), ("memory", "MemoryBytes"), ("pids", "Pids")):
                if word in given:
                    target[field] = _amount(field, given[word])
            if "generic_resources" in given:
                target["GenericResources"] = [_generic(each) for each in given["generic_resources"].elements()]
            if "devices" in given:
                raise given["devices"].refusal("devices cannot be reserved: use generic_resources")
    return {key: value for key, value in (("Limits", limits), ("Reservations", reservations)) if value}


def _amount(field: str, cursor: Cursor) -> int:
    if field == "NanoCPUs":
        return cursor.parsed(parse_nano_cpus)
    return cursor.integer() if field == "Pids" else cursor.parsed(parse_bytes)


def _generic(cursor: Cursor) -> Json:
    discrete = cursor.field("discrete_resource_spec")
    fields = discrete.fields(frozenset({"kind", "value"})) if discrete is not None else {}
    if set(fields) != {"kind", "value"}:
        raise cursor.refusal("discrete_resource_spec with kind and value is needed")
    return {"DiscreteResourceSpec": {"Kind": fields["kind"].text(), "Value": fields["value"].integer()}}


def _restart_policy(cursor: Cursor) -> Json:
    fields = cursor.fields(frozenset({"condition", "delay", "max_attempts", "window"}))
    policy: Json = {}
    if "condition" in fields:
        policy["Condition"] = fields["condition"].text()
    if "max_attempts" in fields:
        policy["MaxAttempts"] = fields["max_attempts"].integer()
    for key, field in (("delay", "Delay"), ("window", "Window")):
        if key in fields:
            policy[field] = fields[key].parsed(parse_duration)
    return policy


def restart_of(cursor: Cursor) -> Json | None:
    """Return the policy that the older `restart` stands for; None for the default. Raises InvalidArgument."""
    if cursor.value is False:  # `restart: no` of YAML 1.1
        return {"Condition": "none"}
    word, _, count = cursor.text().partition(":")
    if word in {"always", "unless-stopped"}:
        return {"Condition": "any"}
    if word == "on-failure":
        if count and not count.isdecimal():
            raise cursor.refusal(f'"{count}" is no number of attempts')
        return {"Condition": "on-failure", "MaxAttempts": int(count)} if count else {"Condition": "on-failure"}
    if word == "no":
        return {"Condition": "none"}
    raise cursor.refusal("must be no, always, unless-stopped, on-failure or on-failure:NUMBER")


def _placement(deploy: Mapping[str, Cursor], service: Mapping[str, Cursor]) -> Json:
    placement: Json = {}
    if "placement" in deploy:
        fields = deploy["placement"].fields(frozenset({"constraints", "preferences", "max_replicas_per_node"}))
        if "constraints" in fields:
            placement["Constraints"] = fields["constraints"].texts()
        if "preferences" in fields:
            preferences = []
            for each in fields["preferences"].elements():
                spread = each.fields(frozenset({"spread"})).get("spread")
                if spread is None:
                    raise each.refusal("spread is missing")
                preferences.append({"Spread": {"SpreadDescriptor": spread.text()}})
            placement["Preferences"] = preferences
        if "max_replicas_per_node" in fields:
            placement["MaxReplicas"] = fields["max_replicas_per_node"].integer()
    if "platform" in service:
        system, _, architecture = service["platform"].text().partition("/")
        placement["Platforms"] = [{"OS": system, "Architecture": architecture.partition("/")[0]}]
    return placement
