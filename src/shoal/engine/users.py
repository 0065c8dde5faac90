"""Who a container runs as: `user[:group]` against the image's /etc/passwd and /etc/group. Pure."""

from __future__ import annotations

from shoal.errors import InvalidArgument
from shoal.model.base import Struct

_MOST_ID = (1 << 31) - 1


class Identity(Struct):
    """Numbers of the user, the group and the supplementary groups; `home` is empty where passwd has none."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = ""


def resolve(user: str, extra_groups: tuple[str, ...], passwd: str, group: str) -> Identity:
    """Resolve `user` (`""`, `name`, `uid`, `name:group`, `uid:gid`) and names or numbers of further groups.

    Args:
        user: as in `docker run --user`; empty is root.
        extra_groups: supplementary groups, names or numbers.
        passwd: text of the image's /etc/passwd (may be empty).
        group: text of the image's /etc/group (may be empty).

    Raises:
        InvalidArgument: a name is in neither file, in Docker's words.
    """
    user_part, _, group_part = user.partition(":")
    users, groups = _entries(passwd, 7), _entries(group, 4)
    found = _find(users, user_part or "0", 2)
    if found is not None:
        uid, gid, name, home = _number(found[2]), _number(found[3]), found[0], found[5]
    elif _is_number(user_part):
        uid, gid, name, home = _checked(user_part), 0, "", ""
    elif user_part:
        raise InvalidArgument(f"unable to find user {user_part}: no matching entries in passwd file")
    else:
        uid, gid, name, home = 0, 0, "", ""
    if group_part:
        gid = _group_number(group_part, groups)
        memberships: list[int] = []
    else:
        memberships = [_number(entry[2]) for entry in groups if name and name in entry[3].split(",")]
    # the first group is among the others, as Docker has it: else a file that shuts it out is open (CVE-2022-36109)
    memberships += [_group_number(extra, groups) for extra in extra_groups]
    return Identity(uid=uid, gid=gid, groups=tuple(dict.fromkeys([gid, *memberships])), home=home)


def _entries(text: str, fields: int) -> list[list[str]]:
    lines = (line.strip() for line in text.splitlines())
    entries = [line.split(":") for line in lines if line and not line.startswith("#")]
    return [(entry + [""] * fields)[:fields] for entry in entries if len(entry) >= 3 and _is_number(entry[2])]


def _find(entries: list[list[str]], wanted: str, number_field: int) -> list[str] | None:
    by_name = next((entry for entry in entries if entry[0] == wanted), None)
    return by_name or next((entry for entry in entries if entry[number_field] == wanted), None)


def _group_number(wanted: str, groups: list[list[str]]) -> int:
    found = _find(groups, wanted, 2)
    if found is not None:
        return _number(found[2])
    if _is_number(wanted):
        return _checked(wanted)
    raise InvalidArgument(f"unable to find group {wanted}: no matching entries in group file")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str) -> int:
    return int(text) if _is_number(text) else 0


def _checked(text: str) -> int:
    if int(text) > _MOST_ID:
        raise InvalidArgument(f"uids and gids must be in range 0-{_MOST_ID}")
    return int(text)
