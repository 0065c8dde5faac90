"""The language of Go's text/template, over values as JSON has them.

Text, `{{actions}}` with trim markers and comments, fields, variables, pipelines, `if`, `else if`, `with`, `range`,
`end`, and the functions of `golang_functions` besides those given. Knows nothing of what is filled in. `define`,
`template` and `block` are refused: nothing here can loop for ever. Every bound is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from shoal.language.golang_functions import BUILT_IN, TemplateError, as_text, is_true
from shoal.model.base import Struct

__all__ = ["TemplateError", "Values", "check", "render"]

MOST_NESTING = 50
MOST_OUTPUT_CHARACTERS = 4 << 20

_ACTION = re.compile(
    r"\{\{(?:-(?=\s))?\s*(?:/\*(?:.*?)\*/\s*|(?:\"(?:\\.|[^\"\\\n])*\"|`[^`]*`|[^\"`])*?)(?:(?<=\s)-)?\}\}", re.DOTALL
)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\\n])*")|(?P<raw>`[^`]*`)|(?P<number>[+-]?\d+(?:\.\d+)?)"""
    r"""|(?P<field>(?:\.\w+)+|\.)|(?P<variable>\$\w*(?:\.\w+)*)|(?P<word>\w+)|(?P<mark>:=|[|(),=]))"""
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_UNSUPPORTED = frozenset(
    {"define", "template", "block", "break", "continue", "call", "html", "js", "urlquery", "slice"}
)


Absent = Callable[[Any, str], Any]


def _refuse(value: Any, path: str) -> Any:
    del value
    raise TemplateError(f"{path} stands for nothing")


class Values:
    """What stands behind a template: `dot`, functions besides the built-in ones, and what is told of an absent field.

    `absent` is called with what has no such field and the path that leads there: it returns what stands for it, or
    raises TemplateError.
    """

    def __init__(
        self, dot: Any, functions: Mapping[str, Callable[..., Any]] | None = None, absent: Absent = _refuse
    ) -> None:
        self.dot = dot
        self.functions: dict[str, Callable[..., Any]] = {**BUILT_IN, **(functions or {})}
        self.absent = absent


class _Node(Struct):
    """A part of a template: text, or an action. `word` is text, print, if, with or range."""

    word: str
    text: str = ""
    pipeline: tuple[tuple[str, str], ...] = ()
    then: tuple[_Node, ...] = ()
    otherwise: tuple[_Node, ...] = ()


def render(text: str, values: Values) -> str:
    """Return `text` with its actions carried out. Raises TemplateError, which says what is wrong and where."""
    if "{{" not in text:
        return text
    nodes, end = _parse(_pieces(text), 0)
    if end:
        raise TemplateError(f"unexpected {{{{{end}}}}}")
    run = _Run(values)
    run.nodes(nodes, values.dot)
    return "".join(run.output)


def check(text: str) -> None:
    """Raise TemplateError if `text` is no template; what it stands for is not looked at."""
    _, end = _parse(_pieces(text), 0)
    if end:
        raise TemplateError(f"unexpected {{{{{end}}}}}")


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Cut into ("text", …) and ("action", …), spaces taken away where markers say so."""
    position, trims = 0, False
    while True:
        opening = text.find("{{", position)
        literal = text[position:] if opening < 0 else text[position:opening]
        if trims:
            literal = literal.lstrip(" \t\r\n")
        if opening < 0:
            if literal:
                yield "text", literal
            return
        match = _ACTION.match(text, opening)
        if match is None:
            raise TemplateError(f"unclosed action: {text[opening : opening + 40]}")
        action = match[0][2:-2]
        if action.startswith("-") and action[1:2].isspace():
            action, literal = action[1:], literal.rstrip(" \t\r\n")
        trims = action.endswith("-") and action[-2:-1].isspace()
        if literal:
            yield "text", literal
        action = (action[:-1] if trims else action).strip()
        if not action.startswith("/*"):
            yield "action", action
        position = match.end()


def _parse(pieces: Iterator[tuple[str, str]], depth: int) -> tuple[tuple[_Node, ...], str]:
    """Return the nodes up to an `end` or `else`, and what ended them ("" for the end of the text)."""
    if depth > MOST_NESTING:
        raise TemplateError(f"actions are nested more than {MOST_NESTING} deep")
    nodes: list[_Node] = []
    for kind, content in pieces:
        if kind == "text":
            nodes.append(_Node(word="text", text=content))
            continue
        word, _, rest = content.partition(" ")
        if word in ("end", "else"):
            return tuple(nodes), content
        if word in ("if", "with", "range"):
            nodes.append(_parse_block(pieces, word, rest, depth))
        else:
            nodes.append(_Node(word="print", text=content, pipeline=_tokens(content)))
    return tuple(nodes), ""


def _parse_block(pieces: Iterator[tuple[str, str]], word: str, condition: str, depth: int) -> _Node:
    then, end = _parse(pieces, depth + 1)
    otherwise: tuple[_Node, ...] = ()
    if end.startswith("else"):
        kind, _, rest = end.removeprefix("else").strip().partition(" ")
        if kind in ("if", "with"):
            # the one `end` to come closes both
            otherwise, end = (_parse_block(pieces, kind, rest, depth + 1),), "end"
        elif kind:
            raise TemplateError(f"unexpected {kind} after else")
        else:
            otherwise, end = _parse(pieces, depth + 1)
    if end != "end":
        raise TemplateError(f"{{{{{word}}}}} without {{{{end}}}}" if not end else f"unexpected {{{{{end}}}}}")
    return _Node(word=word, text=condition, pipeline=_tokens(condition), then=then, otherwise=otherwise)


def _tokens(text: str) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise TemplateError(f"unexpected {text[position:].strip()[:20]!r} in {{{{{text}}}}}")
        kind = match.lastgroup or ""
        # `(index …).Field`: a field that follows at once is of what stands before it
        if kind == "field" and found and found[-1] == ("mark", ")") and not text[position].isspace():
            kind = "of"
        found.append((kind, match[kind if kind != "of" else "field"]))
        position = match.end()
    if not found:
        raise TemplateError("missing value for an empty action")
    return tuple(found)


class _Run:
    """One rendering."""

    def __init__(self, values: Values) -> None:
        self.output: list[str] = []
        self._length = 0
        self._values = values
        self._variables: list[tuple[str, Any]] = [("$", values.dot)]

    def nodes(self, nodes: tuple[_Node, ...], dot: Any) -> None:
        mark = len(self._variables)
        for node in nodes:
            if node.word == "text":
                self._write(node.text)
            elif node.word == "print":
                value, declares = self._evaluate(node, dot)
                if not declares:
                    self._write(as_text(value))
            elif node.word == "range":
                self._range(node, dot)
            else:
                inner = len(self._variables)
                value, _ = self._evaluate(node, dot)
                taken = node.then if is_true(value) else node.otherwise
                self.nodes(taken, value if node.word == "with" and is_true(value) else dot)
                del self._variables[inner:]
        del self._variables[mark:]

    def _write(self, text: str) -> None:
        self._length += len(text)
        if self._length > MOST_OUTPUT_CHARACTERS:
            raise TemplateError(f"it becomes longer than {MOST_OUTPUT_CHARACTERS} characters")
        self.output.append(text)

    def _range(self, node: _Node, dot: Any) -> None:
        names, pipeline = _declared(node.pipeline)
        value = _Expression(pipeline, dot, self._variables, self._values, node.text).whole()
        if isinstance(value, Mapping):
            pairs = sorted(value.items())
        elif isinstance(value, list | tuple):
            pairs = list(enumerate(value))
        else:
            raise TemplateError(f"range can't iterate over {as_text(value)!r} in {{{{range {node.text}}}}}")
        for key, item in pairs:
            mark = len(self._variables)
            self._variables += zip(names, (key, item) if len(names) > 1 else (item,), strict=False)
            self.nodes(node.then, item)
            del self._variables[mark:]
        if not pairs:
            self.nodes(node.otherwise, dot)

    def _evaluate(self, node: _Node, dot: Any) -> tuple[Any, bool]:
        """Return the value of a node's pipeline, and whether it went into a variable."""
        pipeline = node.pipeline
        if pipeline[0][0] == "variable" and pipeline[1:2] == (("mark", "="),):
            name = pipeline[0][1]
            value = _Expression(pipeline[2:], dot, self._variables, self._values, node.text).whole()
            for index in reversed(range(len(self._variables))):
                if self._variables[index][0] == name:
                    self._variables[index] = (name, value)
                    return value, True
            raise TemplateError(f"undefined variable {name} in {{{{{node.text}}}}}")
        names, pipeline = _declared(pipeline)
        value = _Expression(pipeline, dot, self._variables, self._values, node.text).whole()
        self._variables += [(name, value) for name in names]
        return value, bool(names)


def _declared(tokens: tuple[tuple[str, str], ...]) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Split `$a, $b := …` into names and the rest."""
    if ("mark", ":=") not in tokens:
        return [], tokens
    at = tokens.index(("mark", ":="))
    names = [text for kind, text in tokens[:at] if kind == "variable"]
    return names, tokens[at + 1 :]


class _Expression:
    """A pipeline being evaluated."""

    def __init__(
        self,
        tokens: tuple[tuple[str, str], ...],
        dot: Any,
        variables: list[tuple[str, Any]],
        values: Values,
        text: str,
    ) -> None:
        self._tokens = tokens
        self._dot = dot
        self._variables = variables
        self._functions = values.functions
        self._absent = values.absent
        self._where = f"{{{{{text}}}}}"
        self._at = 0
        self._depth = 0

    def whole(self) -> Any:
        value = self._pipeline()
        if self._at < len(self._tokens):
            raise TemplateError(f"unexpected {self._tokens[self._at][1]!r} in {self._where}")
        return value

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _pipeline(self) -> Any:
        value = self._command(())
        while self._peek() == ("mark", "|"):
            self._at += 1
            value = self._command((value,))
        return value

    def _command(self, last: tuple[Any, ...]) -> Any:
        kind, text = self._peek()
        if kind == "word" and text not in ("true", "false", "nil"):
            self._at += 1
            arguments: list[Any] = []
            while self._peek()[0] not in ("end", "mark") or self._peek() == ("mark", "("):
                arguments.append(self._operand())
            return self._call(text, (*arguments, *last))
        value = self._operand()
        following = self._peek()
        if last or (following[0] != "end" and following not in (("mark", "|"), ("mark", ")"))):
            raise TemplateError(f"{text} is no function in {self._where}")
        return value

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        function = self._functions.get(name)
        if function is None:
            known = "is not supported" if name in _UNSUPPORTED else "is not defined"
            raise TemplateError(f'function "{name}" {known} in {self._where}')
        try:
            return function(*arguments)
        except TypeError:
            raise TemplateError(f"wrong number or kind of arguments for {name} in {self._where}") from None

    def _operand(self) -> Any:
        kind, text = self._peek()
        self._at += 1
        if kind == "string":
            return unquote(text)
        if kind == "raw":
            return text[1:-1]
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "field":
            return self._fields(self._dot, text)
        if kind == "variable":
            return self._variable(text)
        if kind == "word":
            if text in ("true", "false", "nil"):
                return {"true": True, "false": False, "nil": None}[text]
            return self._call(text, ())
        if (kind, text) != ("mark", "("):
            raise TemplateError(f"unexpected {text or 'end'!r} in {self._where}")
        self._depth += 1
        if self._depth > MOST_NESTING:
            raise TemplateError(f"parentheses are nested more than {MOST_NESTING} deep")
        value = self._pipeline()
        self._depth -= 1
        if self._peek() != ("mark", ")"):
            raise TemplateError(f"unclosed left paren in {self._where}")
        self._at += 1
        if self._peek()[0] == "of":
            value = self._fields(value, self._peek()[1])
            self._at += 1
        return value

    def _variable(self, text: str) -> Any:
        name, dot, fields = text.partition(".")
        for known, value in reversed(self._variables):
            if known == name:
                return self._fields(value, f".{fields}") if dot else value
        raise TemplateError(f"undefined variable {name} in {self._where}")

    def _fields(self, value: Any, path: str) -> Any:
        for name in path.split("."):
            if not name:
                continue
            if isinstance(value, Mapping) and name in value:
                value = value[name]
                continue
            try:
                value = self._absent(value, path)
            except TemplateError as error:
                raise TemplateError(f"{error} in {self._where}") from None
        return value


def unquote(literal: str) -> str:
    """Return what a Go string literal in double quotes stands for. Raises TemplateError."""

    def replaced(match: re.Match[str]) -> str:
        if match[1] or match[2]:
            return chr(int(match[1] or match[2], 16))
        if match[3] not in _ESCAPES:
            raise TemplateError(f"unknown escape \\{match[3]} in {literal}")
        return _ESCAPES[match[3]]

    return _ESCAPE.sub(replaced, literal[1:-1])
