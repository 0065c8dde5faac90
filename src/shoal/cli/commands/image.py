"""`shoal images`, `history`, `import`, `load`, `tag`, `rmi`: the images of this node."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import click

from shoal.cli.commands.catalogue import IMAGE
from shoal.cli.grammar import LazyGroup, command, flag
from shoal.cli.session import Column, absent_column, carry_on, connect, filter_query, print_list
from shoal.client.streams import Readable, read_objects
from shoal.errors import InvalidArgument, ShoalError
from shoal.language.texts import age_text, ellipsis, shorten_id, size_text, utc_text
from shoal.lib.units import NANOSECONDS, format_time

DEFAULT_TAG = "latest"
NONE = "<none>"
MOST_CREATED_BY = 45

image = LazyGroup(
    "image",
    lazy=IMAGE,
    aliases={"list": "ls", "remove": "rm"},
    help="Work with the images of this node",
    context_settings={"help_option_names": ["--help"]},
)


def split_reference(reference: str) -> tuple[str, str]:
    """Split `registry:5000/name:tag` or `name@digest` into name and tag or digest, either may be empty."""
    name, found, digest = reference.partition("@")
    if found:
        return name, digest
    head, slash, last = reference.rpartition("/")
    short, _, tag = last.partition(":")
    return f"{head}{slash}{short}", tag


@command("images", "[OPTIONS] [REPOSITORY[:TAG]]", "List the images of this node")
@flag("--all", text="Also those without a name", short="-a")
@flag("--digests", text="Also their digests")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Repository}}")
@flag("--no-trunc", text="Cut nothing short")
@flag("--quiet", text="Ids only", short="-q")
@click.argument("reference", metavar="REPOSITORY[:TAG]", default="")
def list_images(reference: str, filter: tuple[str, ...], format: str | None, **given: Any) -> None:  # noqa: A002
    """List images, a line a name."""
    query = filter_query(filter, reference=[reference] if reference else [])
    found = connect().get("/images/json", {"all": bool(given["all"]), **query})
    rows: list[tuple[str, str, Mapping[str, Any]]] = []
    for item in sorted(found, key=lambda item: item["Created"], reverse=True):
        names = [split_reference(tag) for tag in item.get("RepoTags") or ()] or [(NONE, NONE)]
        rows += [(name, tag, item) for name, tag in names]

    def identity(row: tuple[str, str, Mapping[str, Any]]) -> str:
        return str(row[2]["Id"]) if given["no_trunc"] else shorten_id(row[2]["Id"])

    if given["quiet"] and format is None:
        click.echo("".join(f"{identity(row)}\n" for row in rows), nl=False)
        return
    now = time.time()
    shown = [
        Column("Repository", "REPOSITORY", lambda row: str(row[0])),
        Column("Tag", "TAG", lambda row: str(row[1])),
        Column("Digest", "DIGEST", _digest_text, shown=bool(given["digests"])),
        Column("ID", "IMAGE ID", identity),
        Column("CreatedSince", "CREATED", lambda row: f"{age_text(now - row[2]['Created'])} ago"),
        Column("Size", "SIZE", lambda row: size_text(row[2]["Size"])),
        Column("CreatedAt", "CREATED AT", lambda row: utc_text(row[2]["Created"]), shown=False),
        Column("VirtualSize", "SIZE", lambda row: size_text(row[2]["Size"], digits=4), shown=False),
        *(absent_column(name) for name in ("Containers", "SharedSize", "UniqueSize")),
    ]
    print_list(shown, rows, format, truncate=not given["no_trunc"])


def _digest_text(row: tuple[str, str, Mapping[str, Any]]) -> str:
    digests = [text.partition("@")[2] for text in row[2].get("RepoDigests") or () if text.startswith(f"{row[0]}@")]
    return digests[0] if digests else NONE


@contextmanager
def _open(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: PTH123, SIM115 - closed below
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None
    with file:
        yield file


def show_progress(source: Readable, *, quiet: bool = False) -> None:
    """Print a stream of progress: what happened, without bars."""
    for item in read_objects(source):
        if "stream" in item:
            click.echo(item["stream"], nl=False)
        elif not quiet and "status" in item and not item.get("progressDetail"):
            click.echo(f"{item['id']}: {item['status']}" if item.get("id") else item["status"])


@command("import", "[OPTIONS] file|- [REPOSITORY[:TAG]]", "Make an image out of a root filesystem")
@flag("--change", "list", "Instruction to apply, such as CMD", short="-c", many=True)
@flag("--message", "string", "Message of the image's history", short="-m")
@click.argument("path", metavar="file|-")
@click.argument("reference", metavar="REPOSITORY[:TAG]", default="")
def import_image(path: str, reference: str, change: tuple[str, ...], message: str | None) -> None:
    """Import a tar."""
    if len(change) > 1:
        raise InvalidArgument("--change: give it once, with the instructions on lines of their own")
    name, tag = split_reference(reference)
    query = {"fromSrc": "-", "repo": name or None, "tag": tag or (DEFAULT_TAG if name else None), "message": message}
    if change:
        query["changes"] = change[0]
    headers = {"Content-Type": "application/x-tar"}
    with _open(path) as file, connect().stream("POST", "/images/create", query, file, headers) as response:
        show_progress(response)


@command("load", "[OPTIONS]", "Load images from an archive")
@flag("--input", "string", "Read from a file, not from standard input", short="-i")
@flag("--quiet", text="Show only what was loaded", short="-q")
def load(input: str | None, quiet: bool | None) -> None:  # noqa: A002
    """Load what `docker save` has written."""
    if input is None and sys.stdin.isatty():
        raise ShoalError("requested load from stdin, but stdin is empty: give --input or redirect a file")
    headers = {"Content-Type": "application/x-tar"}
    query = {"quiet": bool(quiet)}
    with _open(input or "-") as file, connect().stream("POST", "/images/load", query, file, headers) as response:
        show_progress(response, quiet=bool(quiet))


@command("history", "[OPTIONS] IMAGE", "Show how an image was made")
@flag("--format", "string", "json, or a template such as {{.CreatedBy}}")
@flag("--human", text="Sizes and times for people (default true)", short="-H")
@flag("--no-trunc", text="Cut nothing short")
@flag("--quiet", text="Ids only", short="-q")
@click.argument("name", metavar="IMAGE")
def history(name: str, format: str | None, **given: Any) -> None:  # noqa: A002
    """Show layers, the newest first."""
    found = connect().get(f"/images/{name}/history")
    whole, for_people = bool(given["no_trunc"]), given["human"] is not False

    def identity(item: Mapping[str, Any]) -> str:
        return str(item["Id"]) if whole else shorten_id(item["Id"])

    def created_by(item: Mapping[str, Any]) -> str:
        text = str(item["CreatedBy"]).replace("\t", " ")
        return text if whole else ellipsis(text, MOST_CREATED_BY)

    if given["quiet"] and format is None:
        click.echo("".join(f"{identity(item)}\n" for item in found), nl=False)
        return
    now = time.time()
    shown = [
        Column("ID", "IMAGE", identity),
        Column("CreatedSince", "CREATED", lambda item: f"{age_text(now - item['Created'])} ago", shown=for_people),
        Column(
            "CreatedAt",
            "CREATED AT",
            lambda item: format_time(item["Created"] * NANOSECONDS["s"]),
            shown=not for_people,
        ),
        Column("CreatedBy", "CREATED BY", created_by),
        Column("Size", "SIZE", lambda item: size_text(item["Size"]) if for_people else str(item["Size"])),
        Column("Comment", "COMMENT", lambda item: str(item["Comment"])),
    ]
    print_list(shown, found, format, truncate=not whole)


@command("tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Give an image another name")
@click.argument("source", metavar="SOURCE_IMAGE[:TAG]")
@click.argument("target", metavar="TARGET_IMAGE[:TAG]")
def tag(source: str, target: str) -> None:
    """Tag an image."""
    name, word = split_reference(target)
    connect().post(f"/images/{source}/tag", None, {"repo": name, "tag": word or DEFAULT_TAG})


@command("rmi", "[OPTIONS] IMAGE [IMAGE...]", "Remove images")
@flag("--force", text="Also if something uses it", short="-f")
@flag("--no-prune", text="Keep parents without a name")
@click.argument("names", metavar="IMAGE", nargs=-1, required=True)
def remove(names: tuple[str, ...], force: bool | None, no_prune: bool | None) -> None:
    """Remove images, carrying on past refusals."""
    client = connect()

    def act(name: str) -> None:
        for item in client.delete(f"/images/{name}", {"force": bool(force), "noprune": bool(no_prune)}) or ():
            for key in ("Untagged", "Deleted"):
                if key in item:
                    click.echo(f"{key}: {item[key]}")

    carry_on(names, act)
