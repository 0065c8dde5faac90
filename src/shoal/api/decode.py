"""From a request's JSON to structs, with the leniency of Docker's decoder and with its texts.

Keys match in any case, unknown keys are ignored, `null` leaves a field at its default; a wrong type is refused with
the field's path. Knows the shapes of structs only, nothing of what they mean.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from shoal.errors import InvalidArgument

T = TypeVar("T")

INTEGER_MOST = 2**63 - 1
# fields that are unsigned in Docker's types, by the number of their bits
UNSIGNED_FIELDS = {
    "Replicas": 64,
    "MaxConcurrent": 64,
    "TotalCompletions": 64,
    "Parallelism": 64,
    "MaxAttempts": 64,
    "MaxReplicas": 64,
    "ForceUpdate": 64,
    "TargetPort": 32,
    "PublishedPort": 32,
    "Mode": 32,
    "SnapshotInterval": 64,
    "KeepOldSnapshots": 64,
    "LogEntriesForSlowFollowers": 64,
    "ForceRotate": 64,
    "DataPathPort": 32,
    "SubnetSize": 32,
}
_BASE64_CHARACTERS = re.compile(r"[A-Za-z0-9+/\r\n]*")


def parse_json(raw: bytes) -> Any:
    """Read JSON text as plain values.

    Raises:
        InvalidArgument: `invalid JSON: …`, with Docker's words where clients know them.
    """
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        text = str(error)
        if "truncated" in text:
            raise InvalidArgument("invalid JSON: unexpected EOF") from None
        # "JSON is malformed: …" repeats what we say already
        raise InvalidArgument(f"invalid JSON: {_first_lower(text.removeprefix('JSON is malformed: '))}") from None
    except UnicodeDecodeError:
        raise InvalidArgument("invalid JSON: the text is not UTF-8") from None
    except RecursionError:
        raise InvalidArgument("invalid JSON: exceeded max depth") from None


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def decode_body(raw: bytes, kind: type[T]) -> T:
    """Read a request's body as a struct of `kind`; an empty body is an empty object, as in Docker.

    Raises:
        InvalidArgument: no JSON, or a field of the wrong type (the text names it).
    """
    if not raw.strip():
        return kind()
    return decode_value(parse_json(raw), kind)


def decode_value(value: Any, kind: type[T]) -> T:
    """Read plain values as a struct of `kind`. Raises InvalidArgument naming the field."""
    if value is None:
        return kind()
    try:
        result: T = _read(value, _shape_of(kind), "")  # type: ignore[arg-type]
    except RecursionError:
        raise InvalidArgument("invalid JSON: exceeded max depth") from None
    return result


@cache
def _shape_of(kind: type) -> inspect.Type:
    """Return the shape of a struct; msgspec works it out anew at each call, which takes milliseconds."""
    return inspect.type_info(kind)


def _read(value: Any, shape: inspect.Type, path: str) -> Any:
    for kind, reader in _READERS:
        if isinstance(shape, kind):
            return reader(value, shape, path)
    raise TypeError(f"no reader for {shape} at {path}")


def _read_struct(value: Any, shape: inspect.StructType, path: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(value, path, "object")
    fields = _fields_of(shape.cls)
    given: dict[str, Any] = {}
    for key, item in value.items():
        field = fields.get(key.lower())
        if field is None or item is None:
            continue
        given[field.name] = _read(item, field.type, f"{path}.{field.encode_name}" if path else field.encode_name)
    return shape.cls(**given)


@cache
def _fields_of(kind: type) -> dict[str, inspect.Field]:
    shape = _shape_of(kind)
    assert isinstance(shape, inspect.StructType)
    return {field.encode_name.lower(): field for field in shape.fields}


def _read_tuple(value: Any, shape: inspect.VarTupleType, path: str) -> Any:
    if not isinstance(value, list):
        raise _mismatch(value, path, "array")
    return tuple(_read_item(item, shape.item_type, f"{path}[{position}]") for position, item in enumerate(value))


def _read_dict(value: Any, shape: inspect.DictType, path: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(value, path, "object")
    return {key: _read_item(item, shape.value_type, f"{path}.{key}") for key, item in value.items()}


def _read_item(item: Any, shape: inspect.Type, path: str) -> Any:
    """Read an element of a list or map, where `null` is the element type's zero."""
    if item is not None or isinstance(shape, inspect.AnyType):
        return _read(item, shape, path)
    if isinstance(shape, inspect.StructType):
        return shape.cls()
    if isinstance(shape, inspect.StrType):
        return ""
    if isinstance(shape, inspect.VarTupleType):
        return ()
    raise _mismatch(item, path, "value")


def _read_union(value: Any, shape: inspect.UnionType, path: str) -> Any:
    for member in shape.types:
        if not isinstance(member, inspect.NoneType):
            return _read(value, member, path)
    raise TypeError(f"a union of nothing at {path}")


def _read_text(value: Any, _shape: inspect.Type, path: str) -> str:
    if not isinstance(value, str):
        raise _mismatch(value, path, "string")
    return value


def _read_integer(value: Any, _shape: inspect.Type, path: str) -> int:
    bits = UNSIGNED_FIELDS.get(path.rpartition(".")[2])
    name = f"uint{bits}" if bits else "int64"
    if isinstance(value, bool) or not isinstance(value, int):
        raise _mismatch(value, path, name)
    most = 2**32 - 1 if bits == 32 else INTEGER_MOST
    least = 0 if bits else -INTEGER_MOST - 1
    if not least <= value <= most:
        raise InvalidArgument(f"invalid JSON: json: cannot unmarshal number {value} into field {path} of type {name}")
    return value


def _read_float(value: Any, _shape: inspect.Type, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mismatch(value, path, "float32")
    try:
        return float(value)
    except OverflowError:
        raise _mismatch(value, path, "float32") from None


def _read_boolean(value: Any, _shape: inspect.Type, path: str) -> bool:
    if not isinstance(value, bool):
        raise _mismatch(value, path, "bool")
    return value


def _read_bytes(value: Any, _shape: inspect.Type, path: str) -> bytes:
    if not isinstance(value, str):
        raise _mismatch(value, path, "base64 string")
    match = _BASE64_CHARACTERS.match(value)
    good = match.end() if match else 0
    text = value.replace("\r", "").replace("\n", "")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArgument(f"invalid JSON: illegal base64 data at input byte {good}") from None


def _read_any(value: Any, _shape: inspect.Type, _path: str) -> Any:
    return value


def _mismatch(value: Any, path: str, wanted: str) -> InvalidArgument:
    where = f"field {path}" if path else "the body"
    return InvalidArgument(f"invalid JSON: json: cannot unmarshal {_word(value)} into {where} of type {wanted}")


def _word(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
    return "object"


_READERS: tuple[tuple[type[inspect.Type], Callable[[Any, Any, str], Any]], ...] = (
    (inspect.StructType, _read_struct),
    (inspect.VarTupleType, _read_tuple),
    (inspect.DictType, _read_dict),
    (inspect.UnionType, _read_union),
    (inspect.StrType, _read_text),
    (inspect.IntType, _read_integer),
    (inspect.FloatType, _read_float),
    (inspect.BoolType, _read_boolean),
    (inspect.BytesType, _read_bytes),
    (inspect.AnyType, _read_any),
)
