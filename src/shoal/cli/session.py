"""What every command needs: the client, and printing lists in Docker's way."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from shoal.cli.daemon_address import chosen_host, chosen_tls
from shoal.cli.screen import paint, terminal_width
from shoal.client.connection import Client, RemoteError
from shoal.errors import InvalidArgument, ShoalError
from shoal.language.tables import table_text
from shoal.language.values import parse_filters

if TYPE_CHECKING:
    from shoal.language.templates import Row

STATUS_NOT_FOUND = 404


def connect() -> Client:
    """Return a client of the daemon that the flags before the command, else the environment, name."""
    context = click.get_current_context()
    given = context.find_root().params
    told: set[str] = set()

    def warn(text: str) -> None:
        if text not in told:
            told.add(text)
            click.echo(f"Warning: {text}", err=True)

    return Client(chosen_host(given), warn, chosen_tls(given))


def confirm(warning: str, *, force: bool = False) -> None:
    """Warn and ask, unless by force; without the answer `y` the command ends here, which is no failure."""
    if force:
        return
    click.echo(f"{warning}\nAre you sure you want to continue? [y/N] ", nl=False)
    if sys.stdin.readline().strip().lower() != "y":
        raise SystemExit(0)


def print_deleted(title: str, lines: Sequence[str]) -> None:
    """Print what was removed, if anything was."""
    if lines:
        click.echo("\n".join((f"Deleted {title}:", *lines)) + "\n")


def filter_query(texts: Sequence[str], **more: Iterable[str]) -> dict[str, str]:
    """Return the query that carries filters; `more` adds values to keys.

    Raises:
        InvalidArgument: a text that is not key=value.
    """
    try:
        filters = parse_filters(texts)
    except ValueError as error:
        raise InvalidArgument(f"--filter: {error}") from None
    for key, values in more.items():
        for value in values:
            filters.setdefault(key, {})[value] = True
    return {"filters": json.dumps(filters)} if filters else {}


class Column:
    """A column of a list: the field's name in formats, the head, how to get it from an item, a cell's colour."""

    def __init__(
        self,
        field: str,
        head: str,
        value: Callable[[Any], Any],
        *,
        shown: bool = True,
        colour: Callable[[str], str] | None = None,
    ) -> None:
        self.field = field
        self.head = head
        self.value = value
        self.shown = shown
        self.colour = colour


def absent_column(field: str) -> Column:
    """Return a column that docker has for templates, and that says nothing here."""
    return Column(field, field.upper(), lambda _: "N/A", shown=False)


def print_list(columns: Sequence[Column], items: Sequence[Any], template: str | None, *, truncate: bool = True) -> None:
    """Print items as a table, or as a template says.

    Args:
        columns: those not shown are for templates.
        items: a line each.
        template: None for the table; what it makes is left as it is.
        truncate: cut the table to the width of the terminal it is on.

    Raises:
        InvalidArgument, NotBuilt: of the template.
    """
    if template is None or template == "table":
        shown = [column for column in columns if column.shown]
        rows = [[column.head for column in shown], *([str(column.value(item)) for column in shown] for item in items)]

        def painted(column: int, cell: str) -> str:
            colour = shown[column].colour
            return paint(cell, colour(cell)) if colour is not None else cell

        if template is None:
            text = table_text(rows, terminal_width() if truncate else None, painted)
        else:
            text = table_text(rows)
        click.echo(text, nl=False)
        return
    from shoal.language.templates import Row, parse_template

    rows_of = [Row((column.field, column.value(item)) for column in columns) for item in items]
    if template.startswith("table "):
        _print_template_table(columns, rows_of, template.removeprefix("table ").strip())
        return
    # `{{json .}}` shows all fields in order of their names
    render = parse_template("json" if template in ("json", "{{json .}}") else template)
    for row in rows_of:
        click.echo(render(Row(sorted(row.items()))))


def _print_template_table(columns: Sequence[Column], rows: Sequence[Row], template: str) -> None:
    from shoal.language.templates import fields_of, parse_template

    render = parse_template(template)
    heads = {column.field: column.head for column in columns}
    unknown = [field for field in fields_of(template) if field not in heads]
    if unknown:
        raise InvalidArgument(f"--format: there is no field .{unknown[0]}; there are {', '.join(sorted(heads))}")
    lines = [parse_template(template, is_heading=True)(heads), *(render(row) for row in rows)]
    click.echo(table_text([line.split("\t") for line in lines]), nl=False)


def print_inspected(names: Sequence[str], find: Callable[[str], Any], template: str | None) -> None:
    """Print objects as JSON, or each as a template says; what is not found is told after the rest.

    Raises:
        ShoalError: the errors, one a line.
    """
    if not template:
        found, errors = collect(names, find)
        click.echo(json.dumps(found, indent=4, ensure_ascii=False))
    else:
        from shoal.language.templates import parse_template

        render = parse_template(template)
        found, errors = collect(names, find)
        for item in found:
            click.echo(render(item))
    fail_with(errors)


def print_pretty(names: Sequence[str], find: Callable[[str], Any], lines: Callable[[Any], Iterable[str]]) -> None:
    """Print objects in lines for people, an empty line between two; what is not found is told after the rest.

    Raises:
        ShoalError: the errors, one a line.
    """
    found, errors = collect(names, find)
    click.echo("\n\n".join("\n".join(lines(item)) for item in found))
    fail_with(errors)


def delete_each(client: Client, kind: str, names: Sequence[str], *, force: bool) -> None:
    """Delete `/KIND/NAME` for every name, carrying on past refusals; with `force` what is not there is no failure.

    Raises:
        ShoalError: the errors, one a line.
    """

    def act(name: str) -> None:
        try:
            client.delete(f"/{kind}/{name}")
        except RemoteError as error:
            if not force or error.http_status != STATUS_NOT_FOUND:
                raise

    for_each(names, act)


def collect(names: Sequence[str], find: Callable[[str], Any]) -> tuple[list[Any], list[str]]:
    """Call `find` for every name, carrying on past refusals; returns what came and what was refused."""
    found, errors = [], []
    for name in names:
        try:
            found.append(find(name))
        except RemoteError as error:
            errors.append(error.text)
    return found, errors


def carry_on(names: Sequence[str], act: Callable[[str], object]) -> None:
    """Act on every name, carrying on past refusals.

    Raises:
        ShoalError: the errors, one a line.
    """
    _, errors = collect(names, act)
    fail_with(errors)


def for_each(names: Sequence[str], act: Callable[[str], object]) -> None:
    """Act on every name and print it, as `carry_on`."""

    def act_and_tell(name: str) -> None:
        act(name)
        click.echo(name)

    carry_on(names, act_and_tell)


def fail_with(errors: Sequence[str]) -> None:
    """End a command that carried on past failures, if there were any. Raises ShoalError: the errors, one a line."""
    if errors:
        raise ShoalError("\n".join(errors))


def labels_text(labels: Mapping[str, str] | None) -> str:
    """Write labels in one line."""
    from shoal.language.golang_functions import as_text

    return ",".join(f"{key}={as_text(value)}" for key, value in sorted((labels or {}).items()))
