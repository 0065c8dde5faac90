"""Compose files on this machine as a stack: reads what `shoal.compose` asks for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from shoal.compose.project import Loader, Project
from shoal.compose.stack import Stack, make_stack
from shoal.errors import InvalidArgument, NotFound

DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
PROFILES_VARIABLE = "COMPOSE_PROFILES"
FILE_BYTES_MOST = 4 << 20


def read_file(path: str) -> str:
    """Return a file's content, a letter a byte. Raises NotFound, InvalidArgument (unreadable, too large)."""
    if path == "-":
        return sys.stdin.read()
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > FILE_BYTES_MOST:
            raise InvalidArgument(f"{path}: larger than {FILE_BYTES_MOST >> 20} MiB")
        return file.read_bytes().decode("latin-1")
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such file") from None
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None


def read_text(path: str) -> str:
    """Return a text file's content. Raises as `read_file`, and InvalidArgument for what is no UTF-8."""
    content = read_file(path)
    if path == "-":
        return content
    try:
        return content.encode("latin-1").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidArgument(f"{path}: it is no UTF-8 text") from None


def load_project(
    files: Sequence[str], env_files: Sequence[str], profiles: Sequence[str], *, fills_in_variables: bool = True
) -> Project:
    """Return the project of files; without any, of the one with the usual name here."""
    paths = [part for each in files for part in each.split(",") if part]
    if not paths:
        paths = [name for name in DEFAULT_FILES if Path(name).exists()][:1]
        if not paths:
            raise InvalidArgument(f"no Compose file: name one with -c, or have {DEFAULT_FILES[0]} here")
        override = Path(paths[0]).with_suffix(f".override{Path(paths[0]).suffix}")
        paths += [str(override)] if override.exists() else []
    switched_on = [*profiles, *(name for name in os.environ.get(PROFILES_VARIABLE, "").split(",") if name)]
    loader = Loader(read_text, os.environ, switched_on, fills_in_variables=fills_in_variables)
    return loader.load(paths, env_files=env_files)


def load_stack(name: str, files: Sequence[str], env_files: Sequence[str], profiles: Sequence[str]) -> Stack:
    """Return the stack that files stand for; warnings go to standard error."""
    project = load_project(files, env_files, profiles)
    directory = str(Path(project.directory or ".").resolve())
    stack = make_stack(project, name or project.name, directory, read_file, os.environ)
    for warning in stack.warnings:
        click.echo(f"warning: {warning}", err=True)
    return stack
