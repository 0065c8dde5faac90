"""From files to one project: `.env`, variables, `include`, `extends`, `profiles`, several files on top of each other.

Pure: who calls reads the files. What the project means for the swarm is `stack.py`'s.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shoal.compose.cursor import Cursor
from shoal.compose.documents import Map, Place, Seq, parse_document
from shoal.compose.interpolation import Variables, parse_env_file
from shoal.compose.merging import merge, normalized_service, without_resets
from shoal.errors import InvalidArgument, NotFound
from shoal.model.base import Struct

# Returns the text of a file by its path. Raises NotFound.
ReadFile = Callable[[str], str]
SECTIONS = ("services", "networks", "volumes", "secrets", "configs")
TOP_KEYS = frozenset({*SECTIONS, "version", "name", "include"})
# what a service does not take over from the one it extends: it is about other services of that file
_NOT_EXTENDED = ("depends_on", "links", "volumes_from")
INCLUDE_DEPTH_MOST = 16


class Project(Struct):
    """A project as its files say it, variables filled in.

    `values` is the mapping of the top; `directory` is what relative paths are relative to (empty: where one is).
    """

    name: str
    values: Any
    directory: str
    warnings: tuple[str, ...] = ()


class Loader:
    """Reads a project.

    Args:
        read: returns the text of a file.
        environment: the variables of the process.
        profiles: those that are switched on; `*` switches on all.
        fills_in_variables: else `${NAME}` is left as it stands.
    """

    def __init__(
        self,
        read: ReadFile,
        environment: Mapping[str, str],
        profiles: Sequence[str] = (),
        *,
        fills_in_variables: bool = True,
    ) -> None:
        self._fills_in_variables = fills_in_variables
        self._read = read
        self._environment = environment
        self._profiles = frozenset(profiles)
        self._warnings: list[str] = []

    def load(self, paths: Sequence[str], *, env_files: Sequence[str] = ()) -> Project:
        """Load files, the later on top of the earlier.

        Args:
            paths: of the files; `-` is standard input.
            env_files: instead of `.env` beside the first file.

        Raises:
            InvalidArgument: something in a file; file, line and key are named.
            NotFound: a file is not there.
        """
        directory = posixpath.dirname(paths[0]) if paths[0] != "-" else ""
        values, name = self._load_files(paths, directory, env_files, 0)
        values = self._without_idle(values)
        return Project(name=name, values=values, directory=directory, warnings=tuple(self._warnings))

    # -- files

    def _load_files(
        self, paths: Sequence[str], directory: str, env_files: Sequence[str], depth: int
    ) -> tuple[Map, str]:
        if depth > INCLUDE_DEPTH_MOST:
            raise InvalidArgument(f"{paths[0]}: included too deep, or by itself")
        variables = self._variables(directory, env_files)
        merged, name = Map(), ""
        for path in paths:
            document = self._document(path, variables)
            included = document.pop("include", None)
            if included is not None:
                place = document.places.get("include", Place(file=path))
                self._take_in(merged, Cursor(included, "include", place), directory, depth)
            name = str(document.pop("name", None) or name)
            merged = merge(merged, self._extended(document, path, variables))
        for variable in variables.unset:
            self._warn(f"the variable {variable} is not set: it counts as empty")
        return without_resets(merged), name

    def _variables(self, directory: str, env_files: Sequence[str]) -> Variables:
        found: dict[str, str] = {}
        for path in env_files or (posixpath.join(directory, ".env"),):
            try:
                text = self._read(path)
            except NotFound:
                if env_files:
                    raise
                continue
            read = parse_env_file(text, path, Variables({**found, **self._environment}))
            found.update({key: value for key, value in read.items() if value is not None})
        return Variables({**found, **self._environment})

    def _document(self, path: str, variables: Variables) -> Map:
        raw = parse_document(self._read(path), path)
        document = variables.interpolate(raw, "", Place(file=path)) if self._fills_in_variables else raw
        assert isinstance(document, Map)
        top = Cursor(document, "", Place(file=path))
        for key, cursor in top.fields(TOP_KEYS).items():
            if key in SECTIONS:
                cursor.fields()
        version = document.pop("version", None)
        if version is not None and str(version).split(".")[0] in {"1", "2"}:
            place = document.places["version"]
            self._warn(f"{path}:{place.line}: version {version}: it is read as the Compose Specification says today")
        return document

    def _take_in(self, merged: Map, included: Cursor, directory: str, depth: int) -> None:
        """Merge in what `include` names: projects of their own, whose names must not clash."""
        for entry in included.elements() if included.is_sequence else [included]:
            if entry.is_mapping:
                fields = entry.fields(frozenset({"path", "env_file", "project_directory"}))
                if "path" not in fields:
                    raise entry.refusal("path is missing")
                paths = fields["path"].texts()
                env_files = fields["env_file"].texts() if "env_file" in fields else []
            else:
                paths, env_files = [entry.text()], []
            paths = [posixpath.join(directory, path) for path in paths]
            own = posixpath.dirname(paths[0])
            if entry.is_mapping and "project_directory" in fields:
                own = posixpath.join(directory, fields["project_directory"].text())
            values, _ = self._load_files(paths, own, [posixpath.join(directory, each) for each in env_files], depth + 1)
            for section in SECTIONS:
                for key in values.get(section) or ():
                    if key in (merged.get(section) or ()):
                        raise entry.refusal(f'{section}.{key} is defined twice: "{paths[0]}" has it, too')
            merged.update(merge(merged, _rebased(values, own, directory)))
            merged.places.update(values.places)

    # -- extends

    def _extended(self, document: Map, path: str, variables: Variables) -> Map:
        services = document.get("services")
        if not isinstance(services, Map) or not any(isinstance(s, Map) and "extends" in s for s in services.values()):
            return document
        found = Map(document, document.places)
        found["services"] = Map(
            {name: self._resolve(name, document, path, variables, ()) for name in services}, services.places
        )
        return found

    def _resolve(
        self, name: str, document: Map, path: str, variables: Variables, seen: tuple[tuple[str, str], ...]
    ) -> Any:
        """Return a service with what it extends merged in."""
        services = document.get("services")
        service = services.get(name) if isinstance(services, Map) else None
        if not isinstance(service, Map) or "extends" not in service:
            return service
        place = service.places.get("extends", Place(file=path))
        extends = Cursor(service["extends"], f"services.{name}.extends", place)
        if (path, name) in seen:
            raise extends.refusal("it extends itself")
        fields = extends.fields(frozenset({"service", "file"})) if extends.is_mapping else {"service": extends}
        if "service" not in fields:
            raise extends.refusal("service is missing")
        other, file = fields["service"].text(), path
        if "file" in fields:
            file = posixpath.join(posixpath.dirname(path), fields["file"].text())
        source = document if file == path else self._document(file, variables)
        if other not in (source.get("services") or {}):
            raise extends.refusal(f'{file} has no service "{other}"')
        base = self._resolve(other, source, file, variables, (*seen, (path, name)))
        if isinstance(base, Map):
            base = Map({key: value for key, value in base.items() if key not in _NOT_EXTENDED}, base.places)
            if file != path:
                base = _rebased_service(base, posixpath.dirname(file), posixpath.dirname(path))
        own = Map({key: value for key, value in service.items() if key != "extends"}, service.places)
        return merge(base, own, ("services", name))

    # -- profiles

    def _without_idle(self, values: Map) -> Map:
        """Leave out the services whose profiles are all switched off."""
        services = values.get("services")
        if not isinstance(services, Map):
            return values
        kept = Map(places=services.places)
        for name, service in services.items():
            cursor = Cursor(service, f"services.{name}", services.places.get(name, Place()))
            profiles = cursor.field("profiles") if cursor.is_mapping else None
            wanted = profiles.texts() if profiles is not None else []
            if not wanted or "*" in self._profiles or self._profiles.intersection(wanted):
                kept[name] = normalized_service(service)
        found = Map(values, values.places)
        found["services"] = kept
        return found

    def _warn(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.append(text)


def _rebased(values: Map, own: str, directory: str) -> Map:
    """Return a project's values with its relative paths as they are from another directory."""
    if posixpath.normpath(own or ".") == posixpath.normpath(directory or "."):
        return values
    found = Map(values, values.places)
    services = values.get("services")
    if isinstance(services, Map):
        found["services"] = Map(
            {name: _rebased_service(service, own, directory) for name, service in services.items()}, services.places
        )
    for section in ("secrets", "configs"):
        if isinstance(values.get(section), Map):
            found[section] = Map(values[section], values[section].places)
            for name, each in found[section].items():
                if isinstance(each, Map) and isinstance(each.get("file"), str):
                    changed = Map(each, each.places)
                    changed["file"] = _moved(each["file"], own, directory)
                    found[section][name] = changed
    return found


def _rebased_service(service: Any, own: str, directory: str) -> Any:
    if not isinstance(service, Map):
        return service
    found = Map(service, service.places)
    env_file = service.get("env_file")
    if isinstance(env_file, str):
        found["env_file"] = _moved(env_file, own, directory)
    elif isinstance(env_file, Seq):
        found["env_file"] = Seq([_moved_entry(each, own, directory) for each in env_file], env_file.places)
    volumes = service.get("volumes")
    if isinstance(volumes, Seq):
        found["volumes"] = Seq([_moved_mount(each, own, directory) for each in volumes], volumes.places)
    return found


def _moved_entry(entry: Any, own: str, directory: str) -> Any:
    if isinstance(entry, Map) and isinstance(entry.get("path"), str):
        changed = Map(entry, entry.places)
        changed["path"] = _moved(entry["path"], own, directory)
        return changed
    return _moved(entry, own, directory) if isinstance(entry, str) else entry


def _moved_mount(mount: Any, own: str, directory: str) -> Any:
    if isinstance(mount, str) and mount.startswith("."):
        source, colon, rest = mount.partition(":")
        return _moved(source, own, directory) + colon + rest
    if isinstance(mount, Map) and mount.get("type") == "bind" and str(mount.get("source", "")).startswith("."):
        changed = Map(mount, mount.places)
        changed["source"] = _moved(str(mount["source"]), own, directory)
        return changed
    return mount


def _moved(path: str, own: str, directory: str) -> str:
    if path.startswith(("/", "~")):
        return path
    moved = posixpath.relpath(posixpath.join(own, path), directory or ".")
    return moved if moved.startswith(".") else f"./{moved}"
