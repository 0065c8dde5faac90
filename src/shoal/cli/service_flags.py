"""The flags of `service create` and `service update`, as tables: what is alike, what only one of them has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shoal.cli.grammar import OneOf, flag, flags
from shoal.cli.service_labels import LABEL_FLAGS
from shoal.cli.service_references import parse_network, parse_payload
from shoal.language.mounts import parse_mount
from shoal.language.ports import parse_port_match, parse_ports
from shoal.language.values import (
    parse_bytes,
    parse_command,
    parse_credential_spec,
    parse_generic_resource,
    parse_int,
    parse_nano_cpus,
    parse_pair,
    parse_positive_duration,
    parse_preference,
    parse_ratio,
    parse_uint,
    parse_ulimit,
)

Add = Callable[[Any], Any]


def _rollout(name: str, actions: tuple[str, ...], *, with_defaults: bool) -> tuple[Add, ...]:
    def default(text: str) -> str:
        return text if with_defaults else ""

    quoted = ", ".join(f'"{action}"' for action in actions)
    return (
        flag(
            f"--{name}-delay",
            "duration",
            "Pause between two batches",
            parse=parse_positive_duration,
            default=default("0s"),
        ),
        flag(
            f"--{name}-failure-action",
            "string",
            f"What a failure leads to ({quoted})",
            parse=OneOf(*actions),
            default=default('"pause"'),
        ),
        flag(
            f"--{name}-max-failure-ratio",
            "float",
            "Share of failures that is borne",
            parse=parse_ratio,
            default=default("0"),
        ),
        flag(
            f"--{name}-monitor",
            "duration",
            "How long a new task is watched",
            parse=parse_positive_duration,
            default=default("5s"),
        ),
        flag(
            f"--{name}-order",
            "string",
            'What comes first ("start-first", "stop-first")',
            parse=OneOf("start-first", "stop-first"),
            default=default('"stop-first"'),
        ),
        flag(f"--{name}-parallelism", "uint", "Tasks at a time (0: all)", parse=parse_uint, default=default("1")),
    )


def _shared(*, with_defaults: bool) -> tuple[Add, ...]:
    """Flags that both commands have; `with_defaults`: help names what the daemon takes when they are left out."""

    def default(text: str) -> str:
        return text if with_defaults else ""

    return (
        flag("--cap-add", "list", "Add a capability", many=True),
        flag("--cap-drop", "list", "Take a capability away", many=True),
        flag("--detach", text="Do not wait until the service has converged", short="-d"),
        flag(
            "--endpoint-mode",
            "string",
            "How names resolve (vip, dnsrr)",
            parse=OneOf("vip", "dnsrr"),
            default=default('"vip"'),
        ),
        flag("--entrypoint", "command", "Replace the image's entrypoint", parse=parse_command),
        flag("--health-cmd", "string", "Command that tells whether a container is well"),
        flag("--health-interval", "duration", "Time between two checks", parse=parse_positive_duration),
        flag("--health-retries", "int", "Failures in a row that make a container unhealthy", parse=parse_int),
        flag(
            "--health-start-interval", "duration", "Time between checks while it starts", parse=parse_positive_duration
        ),
        flag(
            "--health-start-period",
            "duration",
            "Time to start in, where failures do not count",
            parse=parse_positive_duration,
        ),
        flag("--health-timeout", "duration", "The longest a check may take", parse=parse_positive_duration),
        flag("--hostname", "string", "Host name of the containers"),
        flag(
            "--credential-spec",
            "credential-spec",
            "For Windows containers: Linux nodes refuse it",
            parse=parse_credential_spec,
        ),
        flag("--isolation", "string", 'Isolation of the containers; Linux knows only "default"'),
        flag("--init", text="Run an init in each container that forwards signals and reaps"),
        flag("--limit-cpu", "decimal", "The most processors a task may use", parse=parse_nano_cpus),
        flag("--limit-memory", "bytes", "The most memory a task may use", parse=parse_bytes),
        flag("--limit-pids", "int", "The most processes of a task (0: no limit)", parse=parse_int),
        flag("--log-driver", "string", "Where output goes"),
        flag("--log-opt", "list", "Option of the log driver", many=True, parse=parse_pair),
        flag("--max-concurrent", "uint", "Tasks of a job at a time", parse=parse_uint),
        flag("--no-healthcheck", text="Switch off the image's health check"),
        flag("--no-resolve-image", text="Do not ask the registry for the image's digest"),
        flag("--oom-score-adj", "int", "Shift of the out-of-memory score (-1000 to 1000)", parse=parse_int),
        flag("--quiet", text="Show no progress", short="-q"),
        flag("--read-only", text="Mount the root filesystem read-only"),
        flag("--replicas", "uint", "Number of tasks", parse=parse_uint),
        flag("--replicas-max-per-node", "uint", "The most tasks on a node (0: no limit)", parse=parse_uint),
        flag("--reserve-cpu", "decimal", "Processors a node must have left", parse=parse_nano_cpus),
        flag("--reserve-memory", "bytes", "Memory a node must have left", parse=parse_bytes),
        flag(
            "--restart-condition",
            "string",
            'When an ended task is replaced ("none", "on-failure", "any")',
            parse=OneOf("none", "on-failure", "any"),
            default=default('"any"'),
        ),
        flag(
            "--restart-delay",
            "duration",
            "Time before it is replaced",
            parse=parse_positive_duration,
            default=default("5s"),
        ),
        flag("--restart-max-attempts", "uint", "The most replacements", parse=parse_uint),
        flag("--restart-window", "duration", "Time in which replacements are counted", parse=parse_positive_duration),
        *_rollout("rollback", ("pause", "continue"), with_defaults=with_defaults),
        flag(
            "--stop-grace-period",
            "duration",
            "Time before a task is killed",
            parse=parse_positive_duration,
            default=default("10s"),
        ),
        flag("--stop-signal", "string", "Signal that stops a task"),
        flag("--tty", text="Give each container a terminal", short="-t"),
        *_rollout("update", ("pause", "continue", "rollback"), with_defaults=with_defaults),
        *(flag(each.flag, each.word, each.text) for each in LABEL_FLAGS),
        flag("--user", "string", "Name or number of user and group (user[:group])", short="-u"),
        flag("--with-registry-auth", text="Send the registry's credentials to the nodes"),
        flag("--workdir", "string", "Working directory in the container", short="-w"),
    )


CREATE = flags(
    flag("--config", "config", "Give a config to the containers", many=True, parse=parse_payload),
    flag("--constraint", "list", "Condition on nodes", many=True),
    flag("--container-label", "list", "Label of the containers", many=True, parse=parse_pair),
    flag("--dns", "list", "Name server", many=True),
    flag("--dns-option", "list", "Option of the resolver", many=True),
    flag("--dns-search", "list", "Search domain", many=True),
    flag("--env", "list", "Environment variable", short="-e", many=True),
    flag("--env-file", "list", "File of environment variables", many=True),
    flag(
        "--generic-resource", "list", "Resource a node must have left (KIND=N)", many=True, parse=parse_generic_resource
    ),
    flag("--group", "list", "Further group of the user", many=True),
    flag("--host", "list", "Line of /etc/hosts (host:ip)", many=True),
    flag("--label", "list", "Label of the service", short="-l", many=True, parse=parse_pair),
    flag(
        "--mode",
        "string",
        "Kind of service (replicated, global, replicated-job, global-job)",
        parse=OneOf("replicated", "global", "replicated-job", "global-job"),
        default='"replicated"',
    ),
    flag("--mount", "mount", "Mount of the containers", many=True, parse=parse_mount),
    flag("--name", "string", "Name of the service"),
    flag("--network", "network", "Network the service is on", many=True, parse=parse_network),
    flag("--placement-pref", "pref", "Wish of placement (spread=node.labels.KEY)", many=True, parse=parse_preference),
    flag("--publish", "port", "Publish a port", short="-p", many=True, parse=parse_ports),
    flag("--secret", "secret", "Give a secret to the containers", many=True, parse=parse_payload),
    flag("--sysctl", "list", "Kernel parameter of the containers", many=True, parse=parse_pair),
    flag("--ulimit", "ulimit", "Resource limit (name=soft[:hard])", many=True, parse=parse_ulimit),
    *_shared(with_defaults=True),
)

UPDATE = flags(
    flag("--args", "command", "Arguments of the command", parse=parse_command),
    flag("--config-add", "config", "Add or change a config of the containers", many=True, parse=parse_payload),
    flag("--config-rm", "list", "Take a config away by its name", many=True),
    flag("--constraint-add", "list", "Add a condition on nodes", many=True),
    flag("--constraint-rm", "list", "Remove a condition", many=True),
    flag("--container-label-add", "list", "Add or change a label of the containers", many=True, parse=parse_pair),
    flag("--container-label-rm", "list", "Remove a label by its key", many=True),
    flag("--dns-add", "list", "Add a name server", many=True),
    flag("--dns-option-add", "list", "Add an option of the resolver", many=True),
    flag("--dns-option-rm", "list", "Remove an option of the resolver", many=True),
    flag("--dns-rm", "list", "Remove a name server", many=True),
    flag("--dns-search-add", "list", "Add a search domain", many=True),
    flag("--dns-search-rm", "list", "Remove a search domain", many=True),
    flag("--env-add", "list", "Add or change an environment variable", many=True),
    flag("--env-rm", "list", "Remove an environment variable", many=True),
    flag("--force", text="Replace the tasks even if nothing has changed"),
    flag(
        "--generic-resource-add",
        "list",
        "Add a resource a node must have left",
        many=True,
        parse=parse_generic_resource,
    ),
    flag("--generic-resource-rm", "list", "Remove a resource by its kind", many=True),
    flag("--group-add", "list", "Add a further group of the user", many=True),
    flag("--group-rm", "list", "Remove a group", many=True),
    flag("--host-add", "list", "Add a line of /etc/hosts (host:ip)", many=True),
    flag("--host-rm", "list", "Remove a line of /etc/hosts (host[:ip])", many=True),
    flag("--image", "string", "Image of the containers"),
    flag("--label-add", "list", "Add or change a label of the service", many=True, parse=parse_pair),
    flag("--label-rm", "list", "Remove a label by its key", many=True),
    flag("--mount-add", "mount", "Add or change a mount", many=True, parse=parse_mount),
    flag("--mount-rm", "list", "Remove a mount by its target", many=True),
    flag("--network-add", "network", "Add a network", many=True, parse=parse_network),
    flag("--network-rm", "list", "Take the service off a network", many=True),
    flag("--placement-pref-add", "pref", "Add a wish of placement", many=True, parse=parse_preference),
    flag("--placement-pref-rm", "pref", "Remove a wish of placement", many=True, parse=parse_preference),
    flag("--publish-add", "port", "Add or change a published port", many=True, parse=parse_ports),
    flag("--publish-rm", "port", "Remove a published port by its target", many=True, parse=parse_port_match),
    flag("--rollback", text="Go back to the previous specification"),
    flag("--secret-add", "secret", "Add or change a secret of the containers", many=True, parse=parse_payload),
    flag("--secret-rm", "list", "Take a secret away by its name", many=True),
    flag("--sysctl-add", "list", "Add or change a kernel parameter", many=True, parse=parse_pair),
    flag("--sysctl-rm", "list", "Remove a kernel parameter", many=True),
    flag("--ulimit-add", "ulimit", "Add or change a resource limit", many=True, parse=parse_ulimit),
    flag("--ulimit-rm", "list", "Remove a resource limit by its name", many=True),
    *_shared(with_defaults=False),
)
