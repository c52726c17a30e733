"""
Every message that a user of mtaio may see, read from its source.

``python -m tests.messages`` prints them, each with its place. A value in a message is shown as
``…``, as it is on the pages on troubleshooting, with which `tests/test_troubleshooting.py` compares
them.

Not among them: what has its remedy beside it, as a line of ``mtaio check`` has, and what is read
only inside of another message, as the clauses of a contract are.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import mtaio

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY: Final = Path(mtaio.__file__).parent
ROOT: Final = LIBRARY.parent

VALUE: Final = "…"
"""What stands for a value."""

_MOST: Final = 100
"""How many forms of a message are told apart; more are one, with a value in their place."""

_NEVER_FOLLOWED: Final = {"name", "way_out", "value", "variable", "label", "owner"}
"""Parameters whose arguments are a value in a message."""

_VALUES: Final = {"type_of"}
"""Functions that return a value in a message."""

_INSIDE_OTHERS: Final = {
    "_check_cache.py",  # what a clause says; ContractError is the message
    "_check_limiter.py",
}
"""Modules whose texts are seen only inside of another module's message."""

_LEVELS: Final = {"log", "warning", "error", "exception", "critical", "_log_aside"}
"""Methods of loggers whose lines an operator sees; what is only INFO explains itself."""

_TELLING: Final = {"warnings.warn", "pytest.fail", "sys.stderr.write", "logging.LogRecord", ".text"}
"""Functions whose arguments are messages; ``text`` makes an answer to an HTTP request."""

_REPEATED: Final = re.compile(f"{VALUE}+")

_PERCENT: Final = re.compile(r"%[-+ 0-9.#]*[rsdgf]")

_UNKNOWN: Final = ast.Constant(value=None)

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_Node: TypeAlias = ast.AST
_Seen: TypeAlias = frozenset[ast.expr]


@dataclass(frozen=True, order=True)
class Message:
    """A message, and where it stands."""

    text: str
    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


class Module:
    """One module of the library."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.place: Final = path.relative_to(ROOT).as_posix()
        self.name: Final = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        self.tree: Final = ast.parse(path.read_text(encoding="utf-8"))
        self.nodes: Final = list(ast.walk(self.tree))
        self.outer: Final[dict[_Node, _Node]] = {
            child: node for node in self.nodes for child in ast.iter_child_nodes(node)
        }

    @cached_property
    def constants(self) -> dict[str, list[ast.expr]]:
        """What the names of the module stand for."""
        return _assigned(self.tree)

    @cached_property
    def functions(self) -> dict[str, _Function]:
        """The functions of the module, methods included, by their name."""
        return {node.name: node for node in self.nodes if isinstance(node, _Function)}

    @cached_property
    def imported(self) -> dict[str, tuple[str, str]]:
        """The module that each name imported from mtaio comes from, and its name there."""
        return {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in self.nodes
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mtaio")
            for alias in node.names
        }

    @cached_property
    def calls(self) -> dict[str, list[ast.Call]]:
        """The calls in the module, by the last name of what is called."""
        found: dict[str, list[ast.Call]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Call):
                found.setdefault(_last_name(node.func), []).append(node)
        return found

    def imports(self, other: Module) -> bool:
        """Return whether it imports something of another module, or that module."""
        names = {other.name, other.name.rpartition(".")[0]}
        return any(source in names for source, _ in self.imported.values())

    def knows(self, name: str) -> bool:
        """Return whether a name is a function of the module, or imported from mtaio."""
        return name in self.functions or name in self.imported

    def may_mean(self, call: ast.Call, other: Module) -> bool:
        """Return whether ``call`` may be one of a function or a class of another module."""
        match call.func:
            case ast.Name(id=name):
                source = self.imported.get(name, (self.name, name))[0]
                return source in {other.name, other.name.rpartition(".")[0]}
            case ast.Attribute(value=ast.Name(id="self")):
                return self is other
            case ast.Attribute(value=ast.Name(id=name)) if name in self.imported:
                return ".".join(self.imported[name]) in {other.name, *other.classes}
            case _:
                return True

    @cached_property
    def classes(self) -> set[str]:
        """The classes of the module, as their package shows them."""
        package = self.name.rpartition(".")[0]
        names = [node.name for node in self.nodes if isinstance(node, ast.ClassDef)]
        return {f"{where}.{name}" for where in (package, self.name) for name in names}

    def around(self, node: _Node) -> Iterator[_Node]:
        """Yield what ``node`` stands in, from the inside."""
        while node in self.outer:
            node = self.outer[node]
            yield node

    def functions_around(self, node: _Node) -> list[_Function]:
        """Return the functions that ``node`` stands in, from the inside."""
        return [each for each in self.around(node) if isinstance(each, _Function)]


_Source: TypeAlias = tuple[Module, ast.expr]


class Messages:
    """The messages of the library."""

    def __init__(self) -> None:
        self.modules: Final = {
            module.name: module for module in map(Module, sorted(LIBRARY.rglob("*.py")))
        }

    def all(self) -> list[Message]:
        """Return them, in the order of their places; one for each form."""
        found = {message for _, messages in self._read for message in messages}
        kept = filter(_is_seen, found)
        return sorted(kept, key=lambda each: (each.path, each.line, each.text))

    def unread(self) -> list[Message]:
        """Return the places where something is told, and it could not be read what."""
        return [place for place, messages in self._read if not messages and _is_seen(place)]

    @cached_property
    def _read(self) -> list[tuple[Message, set[Message]]]:
        """Each place where something is told, with its code, and what is told there."""
        return [
            (
                Message(ast.unparse(node), module.place, node.lineno),
                {message for each in told for message in self._messages(module, each)},
            )
            for module in self.modules.values()
            for node in module.nodes
            if isinstance(node, ast.Call) and (told := list(self._told(module, node)))
        ]

    def _messages(self, module: Module, told: ast.expr) -> Iterator[Message]:
        """Yield the messages that an expression stands for."""
        for where, text in self._sources(module, told, frozenset()):
            for form in map(_tidy, self._forms(where, text, frozenset())):
                if _says_something(form):
                    yield Message(form, where.place, text.lineno)

    # ---- where a message is told -----------------------------------------------------------------

    def _told(self, module: Module, node: ast.Call) -> Iterator[ast.expr]:
        """Yield the arguments of a call that are messages."""
        name = _last_name(node.func)
        receiver = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if name in _LEVELS and "log" in f"{receiver}{name}".lower():
            yield from self._logged(module, node.args)
        elif name == "refusal" and len(node.args) == 3:
            yield _sentences(node, *node.args[1:])
        elif name == "SettingProblem":
            words = {each.arg: each.value for each in node.keywords}
            if isinstance(words["message"], ast.JoinedStr):  # and not what an error says
                yield _sentences(node, words["message"], words["remedy"])
        elif name == "add_note" and not receiver:  # its beginning and its end
            parts: list[ast.expr] = [ast.FormattedValue(each, -1) for each in node.args[1:]]
            yield ast.copy_location(ast.JoinedStr(parts), node)
        elif (
            self._makes_error(module, node)
            or f"{receiver}.{name}" in _TELLING
            or (name, module.path.name) == ("_fail", "_check.py")  # what a health check reports
            or (name == "add_note" and receiver)
            or (name == "note" and not receiver and module.knows("note"))
            or (name == "print" and any(word.arg == "file" for word in node.keywords))
        ):
            yield from node.args

    def _logged(self, module: Module, args: list[ast.expr]) -> Iterator[ast.expr]:
        """Yield the text given to a logger, as if it were an f-string with its arguments."""
        for at, given in enumerate(args):
            for _, text in self._sources(module, given, frozenset()):
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    values: list[ast.expr] = []
                    for number, piece in enumerate(_PERCENT.split(text.value)):
                        if number:
                            value = args[at + number] if at + number < len(args) else _UNKNOWN
                            is_known = not isinstance(value, ast.Starred)
                            values.append(ast.FormattedValue(value if is_known else _UNKNOWN, -1))
                        values.append(ast.Constant(piece))
                    yield ast.copy_location(ast.JoinedStr(values), text)
                    return

    @cached_property
    def _composing(self) -> set[str]:
        """The errors that make their message themselves, of their arguments."""
        return {
            node.name
            for module in self.modules.values()
            for node in module.nodes
            if isinstance(node, ast.ClassDef)
            for each in node.body
            if isinstance(each, ast.FunctionDef) and each.name == "__init__"
            if any(isinstance(part, ast.JoinedStr) for part in ast.walk(each))
        }

    def _makes_error(self, module: Module, call: ast.Call) -> bool:
        """Return whether ``call`` makes an error or is the ``__init__`` of one's base."""
        name = _last_name(call.func)
        if name == "__init__":
            owner = next((e for e in module.around(call) if isinstance(e, ast.ClassDef)), None)
            return owner is not None and self._is_error(owner.name)
        if isinstance(call.func, ast.Name):
            for function in module.functions_around(call):
                for value in _assigned(function).get(name, ()):
                    return any(self._is_error(_last_name(each)) for each in ast.walk(value))
        if name in self._composing:
            return False
        return self._is_error(module.imported.get(name, ("", name))[1])

    @cached_property
    def _errors(self) -> set[str]:
        classes = {
            node.name: {_last_name(base) for base in node.bases}
            for module in self.modules.values()
            for node in module.nodes
            if isinstance(node, ast.ClassDef)
        }
        errors = {
            name
            for name, thing in vars(builtins).items()
            if isinstance(thing, type) and issubclass(thing, BaseException)
        } | {"WouldBlock", "BrokenWorkerProcess", "UsageError", "StopTest"}
        for _ in classes:
            more = {name for name, bases in classes.items() if bases & errors} - errors
            if not more:
                break
            errors |= more
        return errors

    def _is_error(self, name: str) -> bool:
        return name in self._errors

    # ---- what it says ----------------------------------------------------------------------------

    def _forms(self, module: Module, node: ast.expr, seen: _Seen) -> set[str]:
        """Return the forms that a text may have."""
        match node:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.JoinedStr(values=parts):
                return self._joined(module, parts, seen)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._joined(module, [left, right], seen)
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format")):
                return {re.sub(r"\{[^}]*\}", VALUE, text)}
            case ast.FormattedValue(value=value, conversion=conversion):
                is_text = conversion == -1 and _may_be_text(value)
                return self._forms(module, value, seen) if is_text else {VALUE}
            case _:
                pass
        forms: set[str] = set()
        for where, source in self._sources(module, node, seen):
            if source is node or source in seen:
                forms.add(VALUE)
            else:
                forms |= self._forms(where, source, seen | {source})
        return forms if 0 < len(forms) <= _MOST else {VALUE}

    def _joined(self, module: Module, parts: list[ast.expr], seen: _Seen) -> set[str]:
        forms = [sorted(self._forms(module, part, seen)) for part in parts]
        followed = [
            place
            for place, part in enumerate(parts)
            if forms[place] != [VALUE] and _parameter_in(module, part)
        ]
        if len(followed) > 1:  # they may not go with each other
            for place in followed:
                forms[place] = [VALUE]
        if prod(map(len, forms)) > _MOST:
            forms = [each if len(each) == 1 else [VALUE] for each in forms]
        return {_REPEATED.sub(VALUE, "".join(each)) for each in product(*forms)}

    def _sources(self, module: Module, node: ast.expr, seen: _Seen) -> Iterator[_Source]:
        """Yield what an expression stands for, names and calls followed, each with its module."""
        if node in seen:
            return
        match node:
            case ast.IfExp(body=body, orelse=orelse):
                found = [(module, body), (module, orelse)]
            case ast.BoolOp(values=values):  # of "and" the last, of "or" any
                kept = values[-1:] if isinstance(node.op, ast.And) else values
                found = [(module, value) for value in kept]
            case ast.Attribute(value=value, attr=name):
                owner = self._imported(module, value)
                values = [] if owner is None else owner.constants.get(name, [])
                found = [(owner or module, value) for value in values]
            case ast.Name():
                found = list(self._of_name(module, node))
            case ast.Call():
                found = list(self._of_call(module, node))
            case _:
                found = []
        if not found:
            yield module, node
        for where, source in found:
            yield from self._sources(where, source, seen | {node})

    def _of_name(self, module: Module, node: ast.Name) -> Iterator[_Source]:
        """Yield what a name stands for: a variable, a parameter, or a constant."""
        name = node.id
        for function in module.functions_around(node):
            values = _assigned_before(module, function, node)
            if not values and name in _parameters(function):
                if name not in _NEVER_FOLLOWED:
                    yield from self._passed(module, function, name)
                return
            values = values or _assigned(function).get(name, [])
            for value in values:
                yield module, value
            if values:
                return
        owner: Module | None = module
        if name in module.imported:
            source, name = module.imported[name]
            owner = self.modules.get(source)
        if owner is not None:
            for value in owner.constants.get(name, []):
                yield owner, value

    def _passed(self, module: Module, function: _Function, name: str) -> Iterator[_Source]:
        """Yield what is passed for a parameter of a function of the library."""
        called = function.name
        if called == "__init__":
            owner = module.outer[function]
            assert isinstance(owner, ast.ClassDef)
            called = owner.name
        for where in self.modules.values():
            if where is not module and not where.imports(module):
                continue
            for call in where.calls.get(called, []):
                if not where.may_mean(call, module):
                    continue
                passed = _argument(function, call, name)
                if passed is not None:
                    yield where, passed

    def _of_call(self, module: Module, call: ast.Call) -> Iterator[_Source]:
        """Yield what a function of the library returns."""
        owner: Module | None
        match call.func:
            case ast.Name(id=name):
                source, name = module.imported.get(name, (module.name, name))
                owner = self.modules.get(source)
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                owner = module
            case ast.Attribute(value=value, attr=name):
                owner = self._imported(module, value) or self._method_of.get(name)
            case _:
                return
        function = None if owner is None else owner.functions.get(name)
        if owner is None or function is None or name in _VALUES:
            return
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and node.value is not None:
                yield owner, node.value

    @cached_property
    def _method_of(self) -> dict[str, Module]:
        """The module of each function whose name no other module has."""
        places: dict[str, list[Module]] = {}
        for module in self.modules.values():
            for name in module.functions:
                places.setdefault(name, []).append(module)
        return {name: modules[0] for name, modules in places.items() if len(modules) == 1}

    def _imported(self, module: Module, node: ast.expr) -> Module | None:
        """Return the module of the library that a name stands for."""
        if not isinstance(node, ast.Name) or node.id not in module.imported:
            return None
        return self.modules.get(".".join(module.imported[node.id]))


def _is_seen(message: Message) -> bool:
    return Path(message.path).name not in _INSIDE_OTHERS


def _sentences(node: ast.Call, reason: ast.expr, way_out: ast.expr) -> ast.expr:
    """Return the text that two arguments of a call make: what is wrong, and what to do."""
    parts: list[ast.expr] = [
        ast.FormattedValue(reason, -1),
        ast.Constant(". "),
        ast.FormattedValue(way_out, -1),
    ]
    return ast.copy_location(ast.JoinedStr(parts), node)


def _last_name(node: _Node) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return _last_name(value)
        case _:
            return ""


def _parameter_in(module: Module, part: ast.expr) -> bool:
    """Return whether a part of a text is what was passed for a parameter that is followed."""
    node = part.value if isinstance(part, ast.FormattedValue) else part
    if not isinstance(node, ast.Name) or node.id in _NEVER_FOLLOWED:
        return False
    functions = module.functions_around(node)
    return any(node.id in _parameters(each) for each in functions) and not any(
        _assigned_before(module, each, node) for each in functions
    )


def _may_be_text(node: ast.expr) -> bool:
    kinds = ast.Name | ast.Attribute | ast.IfExp | ast.Call | ast.Constant | ast.JoinedStr
    return isinstance(node, kinds)


def _assigned_before(module: Module, function: _Function, name: ast.Name) -> list[ast.expr]:
    """Return what is assigned to a name in the statements before it, the nearest that do so."""
    node: _Node = name
    for outer in module.around(name):
        block: list[_Node] = next((each for each in _blocks(outer) if node in each), [node])
        for statement in reversed(block[: block.index(node)]):
            values = _assigned_by(statement).get(name.id)
            if values:
                return values
        if outer is function:
            break
        node = outer
    return []


def _blocks(node: _Node) -> Iterator[list[_Node]]:
    for field in ("body", "orelse", "finalbody"):
        block: object = getattr(node, field, None)
        if isinstance(block, list):
            yield cast("list[_Node]", block)


@cache
def _assigned(scope: _Node) -> dict[str, list[ast.expr]]:
    """Return what is assigned to the names of a module or a function, not of a function in it."""
    return _assigned_in(list(ast.iter_child_nodes(scope)))


@cache
def _assigned_by(statement: _Node) -> dict[str, list[ast.expr]]:
    """Return what a statement assigns to names, and what is in it."""
    return _assigned_in([statement])


def _assigned_in(pending: list[_Node]) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    while pending:
        node = pending.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Lambda():
                continue
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found.setdefault(name, []).append(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                found.setdefault(name, []).append(value)
            case _:
                pass
        pending.extend(ast.iter_child_nodes(node))
    return found


def _parameters(function: _Function) -> list[str]:
    args = function.args
    return [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]


def _argument(function: _Function, call: ast.Call, name: str) -> ast.expr | None:
    """Return what ``call`` passes for a parameter."""
    for word in call.keywords:
        if word.arg == name:
            return word.value
    names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
    if names[:1] in (["self"], ["cls"]):
        del names[0]
    if name not in names:
        return None
    at = names.index(name)
    if at < len(call.args) and not any(isinstance(each, ast.Starred) for each in call.args[:at]):
        return call.args[at]
    return None


def _tidy(text: str) -> str:
    """Return a message on one line, each value a single ``…``."""
    return _REPEATED.sub(VALUE, " ".join(text.split()))


def _says_something(text: str) -> bool:
    return " " in text and len(re.findall(r"[A-Za-z]{2,}", text)) > 1


if __name__ == "__main__":
    sys.stdout.writelines(f"{each}\n" for each in Messages().all())
