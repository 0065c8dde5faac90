"""The parts of one container on the host: overlay, files in /etc, secrets, volumes, cgroups. Blocking.

Everything made here is taken away by `release` (what a run needs) and `discard` (all the rest).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from pathlib import Path

import structlog

from shoal.engine import syscalls
from shoal.engine.host import Host
from shoal.engine.oci import FileBind
from shoal.engine.process_table import pids_of
from shoal.engine.volumes import LocalVolumes
from shoal.errors import InvalidArgument, ShoalError
from shoal.lib.files import remove_tree, write_atomically
from shoal.model.container import ContainerConfig, ImageRecord
from shoal.model.container_spec import Driver, Mount, VolumeOptions

_log = structlog.get_logger(__name__)

_CGROUP_TRIES = 50
_CGROUP_WAIT_SECONDS = 0.02
# a bound, not what is taken: one copy of each secret and config a container
SECRETS_BYTES = 256 << 20
# The lowest layer of every container, beside those of images (which count from 1): places for what is mounted. Where an
# image lacks them runc would make them in the container's own layer, a copy of /etc and four files a start.
MOUNTPOINTS = "0"
MOUNTPOINT_DIRECTORIES = ("dev", "etc", "proc", "sys")
MOUNTPOINT_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf")


class Layout:
    """Where the parts of containers lie. `cgroup_parent` carries the daemon's id: several daemons share a machine."""

    def __init__(self, data_root: Path, exec_root: Path, layer_root: Path, daemon_id: str, host: Host) -> None:
        self.containers = data_root / "containers"
        self.volumes = data_root / "volumes"
        self.exec_root = exec_root
        self.bundles = exec_root / "bundles"
        self.secrets = exec_root / "secrets"
        self.runc_root = exec_root / "runc"
        self.consoles = exec_root / "tty"
        self.layer_root = layer_root
        self.mountpoints = layer_root / MOUNTPOINTS
        self.cgroup_parent = f"/shoal-{daemon_id}"
        self.keeper_cgroup = f"shoal-keeper-{daemon_id}"
        self.host = host

    def make(self) -> None:
        """Make the directories. Raises ShoalError if secrets would touch a disk."""
        for path in (self.containers, self.volumes, self.bundles, self.runc_root, self.consoles, self.secrets):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.containers.parent.chmod(0o711)
        for name in ("", *MOUNTPOINT_DIRECTORIES):
            (self.mountpoints / name).mkdir(parents=True, exist_ok=True, mode=0o755)
        for name in MOUNTPOINT_FILES:
            (self.mountpoints / name).touch(mode=0o644)
        if not syscalls.is_tmpfs(self.secrets):
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
            try:
                syscalls.mount("shoal-secrets", self.secrets, "tmpfs", flags, f"mode=0700,size={SECRETS_BYTES}")
            except OSError as error:
                raise ShoalError(f"{self.secrets} is no tmpfs and none can be mounted there: {error}") from None

    def unmake(self) -> None:
        """Take away what `make` mounted, and the cgroups."""
        syscalls.unmount(self.secrets)
        self.remove_cgroups()

    def remove_cgroups(self) -> None:
        """Remove the daemon's cgroups, those that are empty."""
        for mount in self.host.cgroup_mounts:
            for name in (self.cgroup_parent, f"/{self.keeper_cgroup}"):
                with contextlib.suppress(OSError):
                    Path(mount + name).rmdir()

    def directory(self, container_id: str) -> Path:
        """Return the directory of a container that lives as long as it."""
        return self.containers / container_id

    def bundle(self, container_id: str) -> Path:
        """Return the directory of a container's run."""
        return self.bundles / container_id

    def cgroup(self, container_id: str) -> str:
        """Return a container's path in every cgroup hierarchy."""
        return f"{self.cgroup_parent}/{container_id}"

    def memory_cgroup(self, container_id: str) -> str:
        """Return the directory where the kernel counts a container's memory."""
        memory = [mount for mount in self.host.cgroup_mounts if mount.endswith("/memory")]
        return (memory or ["/sys/fs/cgroup"])[0] + self.cgroup(container_id)


def mount_root(layout: Layout, container_id: str, lower: tuple[str, ...]) -> Path:
    """Mount a container's root filesystem; return where.

    Args:
        layout: where things lie.
        container_id: whose.
        lower: short names of its image's layers, highest first.

    Raises:
        ShoalError: overlayfs refuses.
    """
    directory = layout.directory(container_id)
    root = layout.bundle(container_id) / "rootfs"
    root.mkdir(parents=True, exist_ok=True)
    upper, work = directory / "upper", directory / "work"
    for path in (upper, work):
        path.mkdir(exist_ok=True, mode=0o755)
    # left by a mount that a crash of the machine ended: overlayfs refuses such a work directory
    volatile = work / "work" / "incompat" / "volatile"
    if volatile.exists():
        remove_tree(volatile)
    descriptor = os.open(layout.layer_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = ":".join(f"/proc/self/fd/{descriptor}/{name}" for name in (*lower, MOUNTPOINTS))
        options = f"lowerdir={names},upperdir={_escape(upper)},workdir={_escape(work)}"
        for extra in (",volatile", ""):
            try:
                syscalls.mount("overlay", root, "overlay", 0, options + extra)
            except OSError as error:
                if extra and error.errno == errno.EINVAL:
                    continue
                raise ShoalError(f"cannot mount the root filesystem of container {container_id}: {error}") from None
            return root
    finally:
        os.close(descriptor)
    raise AssertionError("unreachable")


def _escape(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def write_etc_files(layout: Layout, container_id: str, config: ContainerConfig) -> tuple[FileBind, ...]:
    """Write /etc/hosts, /etc/hostname and /etc/resolv.conf of a container; return where they are bound.

    They live as long as the run, where they cost the disk nothing.
    """
    directory = layout.bundle(container_id)
    hostname = config.hostname or container_id[:12]
    texts = {"hosts": hosts_text(config, hostname), "hostname": f"{hostname}\n", "resolv.conf": resolv_text(config)}
    targets = {mount.target for mount in config.mounts}
    binds = []
    for name, text in texts.items():
        write_atomically(directory / name, text.encode(), mode=0o644, sync=False)
        if f"/etc/{name}" not in targets:
            binds.append(FileBind(source=str(directory / name), target=f"/etc/{name}"))
    return tuple(binds)


def rewrite_etc_files(layout: Layout, container_id: str, config: ContainerConfig) -> None:
    """Bring /etc/hosts and /etc/resolv.conf of a container that runs up to date, in place: they are bound there."""
    directory = layout.bundle(container_id)
    texts = {"hosts": hosts_text(config, config.hostname or container_id[:12]), "resolv.conf": resolv_text(config)}
    for name, text in texts.items():
        with contextlib.suppress(FileNotFoundError):
            path = directory / name
            if path.read_text() != text:
                path.write_text(text)


def hosts_text(config: ContainerConfig, hostname: str) -> str:
    """Return /etc/hosts: loopback, what was asked for, the container's own addresses."""
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff00::\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
    ]
    lines += ["\t".join(line.split(None, 1)) for line in config.hosts]
    full = f"{hostname}.{config.domainname} {hostname}" if config.domainname else hostname
    lines += [f"{address.partition('/')[0]}\t{full}" for address in config.addresses]
    return "\n".join(lines) + "\n"


def resolv_text(config: ContainerConfig, host_text: str | None = None) -> str:
    """Return /etc/resolv.conf: what was asked for, the host's where nothing was.

    With a resolver in its namespace a container asks that one, and `ndots:0` has it ask for a name as it stands before
    it tries search domains. Else it has the name servers given, or those of the host that a container can reach.

    Args:
        config: the container.
        host_text: the host's file; None: it is read.
    """
    host = _HostResolver(_read_host_resolver_file() if host_text is None else host_text)
    if config.resolver_address:
        lines = [f"nameserver {config.resolver_address}"]
    elif config.dns_nameservers:
        lines = [f"nameserver {server}" for server in config.dns_nameservers]
    else:
        lines = host.reachable_servers
    search, options = config.dns_search, config.dns_options
    if search:
        lines += [] if search == (".",) else [f"search {' '.join(search)}"]
    else:
        lines += host.search
    if config.resolver_address:
        options = options or host.options
        if not any(option.startswith("ndots:") for option in options):
            options = (*options, "ndots:0")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


class _HostResolver:
    """What the host's resolv.conf says, line by line."""

    def __init__(self, text: str) -> None:
        lines = text.splitlines()
        servers = [line for line in lines if line.startswith("nameserver")]
        self.reachable_servers = [line for line in servers if not _is_loopback_server(line)]
        self.search = [line for line in lines if line.startswith("search")]
        self.options = tuple(word for line in lines if line.startswith("options") for word in line.split()[1:])


def _read_host_resolver_file() -> str:
    try:
        return Path("/etc/resolv.conf").read_text("utf-8", "replace")
    except OSError:
        return ""


def _is_loopback_server(line: str) -> bool:
    return line.rsplit(maxsplit=1)[-1].startswith(("127.", "::1"))


def put_files(layout: Layout, container_id: str, config: ContainerConfig) -> None:
    """Put secrets and configs into memory, for the life of the container."""
    directory = layout.secrets / container_id
    for number, file in enumerate(config.files):
        directory.mkdir(exist_ok=True, mode=0o711)
        path = directory / str(number)
        path.write_bytes(file.content)
        os.chown(path, file.uid, file.gid)
        path.chmod(file.mode & 0o7777)


def file_binds(layout: Layout, container_id: str, config: ContainerConfig) -> tuple[FileBind, ...]:
    """Return where the files of a container are bound. Raises ShoalError if they are gone (a restarted machine)."""
    binds = []
    for number, file in enumerate(config.files):
        path = layout.secrets / container_id / str(number)
        if not path.exists():
            raise ShoalError(f"the content of {file.path} is gone with the memory it was in; make the container anew")
        binds.append(FileBind(source=str(path), target=file.path, read_only=True))
    return tuple(binds)


def check_binds(config: ContainerConfig) -> None:
    """Refuse binds of paths that do not exist, or make them where asked. Raises InvalidArgument."""
    for mount in config.mounts:
        if mount.type != "bind" or Path(mount.source).exists():
            continue
        if mount.bind_options is not None and mount.bind_options.create_mountpoint:
            Path(mount.source).mkdir(parents=True, exist_ok=True)
        else:
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
            )


def make_volumes(
    layout: Layout,
    volumes: LocalVolumes,
    container_id: str,
    config: ContainerConfig,
    image: ImageRecord,
    root: Path,
) -> dict[str, str]:
    """Make the volumes of a container and fill new ones with what the image has there; return target → directory."""
    wanted = {mount.target: mount for mount in config.mounts if mount.type == "volume"}
    covered = {mount.target.rstrip("/") for mount in config.mounts}
    anonymous = [target for target in image.volumes if target.rstrip("/") not in covered]
    result: dict[str, str] = {}
    for number, target in enumerate([*wanted, *anonymous]):
        mount = wanted.get(target, Mount(type="volume", target=target))
        options = mount.volume_options or VolumeOptions()
        if mount.source:
            driver = options.driver_config or Driver()
            volumes.create(mount.source, driver.name, driver.options, options.labels)
            path, is_fresh = volumes.provide(mount.source)
        else:
            path = layout.directory(container_id) / "volumes" / str(number)
            is_fresh = not path.exists()
            path.mkdir(parents=True, exist_ok=True, mode=0o755)
        if not options.no_copy and (is_fresh or not any(path.iterdir())):
            _copy_up(root, target, path)
        if options.subpath:
            inner = (path / options.subpath).resolve()
            if not inner.is_relative_to(path.resolve()) or not inner.exists():
                where = f"cannot access path {options.subpath} of volume {mount.source}"
                raise InvalidArgument(f"{where}: it does not exist within the volume")
            path = inner
        result[target] = str(path)
    return result


def _copy_up(root: Path, target: str, destination: Path) -> None:
    try:
        descriptor = syscalls.open_in_root(root, target, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        source = f"/proc/{os.getpid()}/fd/{descriptor}/."
        subprocess.run(["cp", "-a", "--", source, str(destination)], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        raise ShoalError(f"cannot fill the volume for {target}: {error.stderr.decode('utf-8', 'replace')}") from None
    finally:
        os.close(descriptor)


def release(layout: Layout, container_id: str) -> None:
    """Take away what a run needed, after it has ended: mount, runc's state, cgroups, FIFOs."""
    bundle = layout.bundle(container_id)
    if bundle.exists():
        syscalls.unmount(bundle / "rootfs")
        remove_tree(bundle)
    remove_tree(layout.runc_root / container_id)
    # one that shared the host's processes leaves its children behind: they end with it
    for pid in pids_of(layout.host, layout.cgroup(container_id)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (layout.consoles / container_id[:12]).unlink(missing_ok=True)
    for mount in layout.host.cgroup_mounts:
        _remove_cgroup(Path(mount + layout.cgroup(container_id)))


def _remove_cgroup(path: Path) -> None:
    for _ in range(_CGROUP_TRIES):
        try:
            for below in sorted((entry for entry in path.rglob("*") if entry.is_dir()), reverse=True):
                below.rmdir()
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            # its last process is being taken apart by the kernel; nothing tells when
            time.sleep(_CGROUP_WAIT_SECONDS)
        else:
            return
    _log.warning("a cgroup cannot be removed: a process is in it still", path=str(path))


def discard(layout: Layout, container_id: str) -> None:
    """Take away all of a container; its record goes first, so that what a crash leaves is known as rubbish."""
    directory = layout.directory(container_id)
    (directory / "container.json").unlink(missing_ok=True)
    release(layout, container_id)
    remove_tree(layout.secrets / container_id)
    remove_tree(directory)
