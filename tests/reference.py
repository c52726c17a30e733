"""
The reference, as pages that can be read on GitHub: ``python -m tests.reference`` writes them.

What names are, and what is said of them, is read by griffe from the code; signatures come from the
imported objects. A class with public methods has a page of its own, ``reference/core/Stream.md``;
everything else stands on the page of its package, ``reference/core.md``, below the comment that
names the module. The text around that is written by hand. Every name has an anchor, its full name.

A signature is what a reader needs, not what a type checker does: one instead of several overloads,
and a constructor only where the class documents its arguments, since others are mtaio's to call.
"""

from __future__ import annotations

import importlib
import inspect
import posixpath
import re
import typing
from functools import cache
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final

import griffe

import mtaio
from tests.api import shown_default
from tests.pages import DOCS
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGES: Final = (
    *("core", "resources", "resilience", "events", "redis", "clients", "asgi", "cache", "logging"),
    *("config", "monitoring", "app", "testing", "exceptions", "statistics", "types"),
)
FAMILIES: Final = {"exceptions", "statistics", "types"}
"""Packages of small things: all on one page."""

MODULES: Final = {
    "core.progress": "core",
    **dict.fromkeys(("monitoring.asgi", "monitoring.otel", "monitoring.traces"), "monitoring"),
    "testing.schedules": "testing",
}
"""Modules that stand on the page of a package."""

BLOCK: Final = re.compile(r"<!-- reference: mtaio\.(\S+) -->\n(?:.*\n)*?<!-- /reference -->\n")
NAV: Final = re.compile(r"(?<=      - reference/index.md\n)(?:.*\n)*(?= +- reference/command-line)")
SECTION: Final = re.compile(
    r"^(Args|Keyword Args|Attributes|Returns|Yields|Raises|Warns|Example|Invariants):$",
    re.MULTILINE,
)
JAPANESE: Final = {
    "Arguments": "引数",
    "Options": "オプション",
    "Attributes": "属性",
    "Returns": "戻り値",
    "Yields": "順に得られる値",
    "Raises": "例外",
    "Warns": "警告",
    "Example": "例",
    "Invariants": "常に成り立つこと",
    "Types": "型",
    "Bases": "基底クラス",
    "name": "名前",
    "meaning": "説明",
    "Text": "説明は、コードのdocstringのまま英語です。",
}
SIMPLE: Final = {
    r"Unset \| | \| Unset\b| \| NothingElse": "",
    r"\bReturned\[(\w+)\]": r"\1 | Awaitable[\1]",
    r"\b_Any\b": "Any",
    r"\b_Bucket\b": "object",
    r"\b_OnProgress\b": "Progress",
    r"\b_Stream\b": "CallStream",
}
"""What serves type checkers alone, or is private, and what a reader sees in its place."""

TITLES: Final = {"Args": "Arguments", "Keyword Args": "Options"}


@cache
def tree() -> griffe.Module:
    """Return the code as griffe reads it, which imports nothing."""
    found = griffe.load("mtaio", search_paths=[ROOT])
    assert isinstance(found, griffe.Module)
    return found


def names(module: str) -> list[str]:
    """Return the public names of a module, those first that `mtaio` itself has."""
    public: list[str] = importlib.import_module(f"mtaio.{module}").__all__
    return sorted(public, key=lambda name: (name not in mtaio.__all__, public.index(name)))


def value(path: str) -> Any:
    """Return the object with this full name, as it is at run time."""
    module = next(m for m in (*MODULES, *PACKAGES) if f"{path}.".startswith(f"mtaio.{m}."))
    found: Any = importlib.import_module(f"mtaio.{module}")
    for name in path.removeprefix(f"mtaio.{module}").split(".")[1:]:
        found = (
            inspect.getattr_static(found, name) if inspect.isclass(found) else getattr(found, name)
        )
    return found


def code(path: str) -> griffe.Object:
    """Return the object with this full name, as griffe reads it."""
    found = tree()[path.removeprefix("mtaio.")]
    return found.final_target if isinstance(found, griffe.Alias) else found


@cache
def members(path: str) -> tuple[griffe.Object, ...]:
    """Return what a class shows: its own first, then what it inherits from mtaio's classes."""
    cls = code(path)
    assert isinstance(cls, griffe.Class)
    arguments = inspect.signature(value(path)).parameters if documents(cls, "Args") else ()
    found = []
    for name, each in {**cls.members, **cls.all_members}.items():
        member = each.final_target if isinstance(each, griffe.Alias) else each
        if not (member.is_function or member.is_attribute) or not member.path.startswith("mtaio."):
            continue
        if name.startswith("_") and not (name == "__call__" and member.docstring):
            continue
        if member.docstring or ("class-attribute" in member.labels or name not in arguments):
            found.append(member)
    return tuple(found)


def documents(thing: griffe.Object, section: str) -> bool:
    """Return whether a docstring has a section."""
    return bool(thing.docstring and f"\n{section}:\n" in thing.docstring.value)


def has_page(module: str, name: str) -> bool:
    """Return whether a name has a page of its own: a class with methods, which is no error."""
    path = f"mtaio.{module}.{name}"
    if module in FAMILIES | set(MODULES) or not code(path).is_class:
        return False
    if issubclass(value(path), BaseException):
        return False
    return any(m.is_function and "property" not in m.labels for m in members(path))


@cache
def homes() -> dict[str, tuple[str, str]]:
    """Return where each public name is explained: its page below reference/, and its anchor."""
    found: dict[str, tuple[str, str]] = {}
    public = [(module, name) for module in (*PACKAGES, *MODULES) for name in names(module)]
    # Where two packages have a name, its home is the one in which the code is.
    public.sort(
        key=lambda each: not code("mtaio.{}.{}".format(*each)).path.startswith(f"mtaio.{each[0]}.")
    )
    for module, name in public:
        path = f"mtaio.{module}.{name}"
        own = (
            f"{module}/{name}.md" if has_page(module, name) else f"{MODULES.get(module, module)}.md"
        )
        found[path] = found.setdefault(code(path).path, (own, path))
    return found


def place(name: str, near: str) -> tuple[str, str] | None:
    """Return where a name is explained that is written in the docstring of what is near."""
    owner = f"{near}."
    while owner:  # a method of the same class, a name of the same package, then any other
        owner = owner.rpartition(".")[0]
        if (path := f"{owner}.{name}" if owner else name) in homes():
            return homes()[path]
        head, _, member = path.rpartition(".")
        if head in homes() and code(head).is_class and any(m.name == member for m in members(head)):
            page, anchor = homes()[head]
            return page, f"{anchor}.{member}"
    last = name.removeprefix("mtaio.")
    return next((homes()[p] for p in homes() if last[0].isupper() and p.endswith(f".{last}")), None)


def is_public(name: str, near: str) -> bool:
    """Return whether a name in the signature of what is near is one of mtaio's that is public."""
    try:
        path = code(near).resolve(name)
        return path.startswith("mtaio.") and code(path).path in homes()
    except griffe.NameResolutionError:  # an option, whose type is known elsewhere
        return place(name, near) is not None
    except (griffe.AliasResolutionError, KeyError):
        return False


class Page:
    """One page, in one language."""

    def __init__(self, path: str, language: str) -> None:
        self.path = path
        self.language = language

    def word(self, english: str) -> str:
        """Return a label in the language of the page."""
        return JAPANESE[english] if self.language == "ja" else english

    def link(self, name: str, near: str) -> str:
        """Return a name as code, with a link if it is public."""
        if (found := place(name, near)) is None or found[1] == near:
            return f"`{name}`"
        page, anchor = found
        page = (
            ""
            if page == self.path
            else posixpath.relpath(page, posixpath.dirname(self.path) or ".")
        )
        return f"[`{name}`]({page}#{anchor})"

    def prose(self, text: str, near: str) -> str:
        """Return the text of a docstring as Markdown, with links to the names in it."""
        parts = re.split(r"(^ *```.*?^ *```$)", text, flags=re.MULTILINE | re.DOTALL)
        for number in range(0, len(parts), 2):
            part = re.sub(
                r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)", lambda m: self.link(m[1], near), parts[number]
            )
            parts[number] = re.sub(r"``([^`\n]+(?:\n[^`\n]+)?)``", r"`\1`", part)
        return "".join(parts)

    def docstring(self, thing: griffe.Object, near: str, types: dict[str, str]) -> Iterator[str]:
        """Yield the sections of a docstring, each a paragraph, a list or an example."""
        if thing.docstring is None:
            return
        first, *others = SECTION.split(inspect.cleandoc(thing.docstring.value))
        yield self.prose(first.strip(), near)
        for section, body in zip(others[::2], others[1::2], strict=True):
            inside = re.match(r"(?:(?: .*)?\n)*(?: .*)?", body)
            assert inside
            text = dedent(inside[0].strip("\n"))
            yield f"**{self.word(TITLES.get(section, section))}**"
            if section in {"Args", "Keyword Args", "Attributes", "Raises", "Warns"}:
                anchor = f'<a id="{near}.{{}}"></a>' if section == "Attributes" else ""
                yield "\n".join(self.items(text, near, types, anchor))
            else:
                yield self.prose(text.strip(), near)
            if rest := body[inside.end() :].strip():
                yield self.prose(rest, near)

    def items(self, text: str, near: str, types: dict[str, str], anchor: str) -> Iterator[str]:
        """Yield what a section lists."""
        for item in re.split(r"\n(?=\S)", text):
            head, _, about = item.partition(":")
            name, _, kind = head.partition(" (")
            if about.strip() == "See below.":
                continue
            shown = types.get(name.lstrip("*"), kind.removesuffix(")"))
            about = self.prose(dedent(about.strip().replace("\n    ", "\n")), near)
            about = about.replace("\n", "\n  ")
            codes = ", ".join(f"`{each}`" for each in name.split(", "))
            yield (
                f"- {anchor.format(name)}{codes}"
                + (f" (`{shown}`)" if shown else "")
                + f": {about}"
            )

    def signature(self, path: str, anchor: str) -> tuple[list[str], dict[str, str]]:
        """Return a signature as a block, the types that it names, and the type of each argument."""
        fn, name = value(path), anchor.rpartition(".")[2]
        bound = not isinstance(fn, staticmethod) and inspect.isclass(value(path.rpartition(".")[0]))
        if inspect.isclass(fn):
            fn, bound = fn.__init__, True
        fn = getattr(fn, "__func__", fn)
        shown = inspect.signature(fn)
        parameters = list(shown.parameters.values())[bound:]
        many = typing.get_overloads(fn) if inspect.isfunction(fn) else []
        types = {p.name: parameter_type(p, many) for p in parameters}
        returned = simple(return_type(shown, many)) if name != "__init__" else ""
        parts, star = [], False
        for before, each in zip([None, *parameters], [*parameters, None], strict=True):
            if (
                before
                and before.kind is before.POSITIONAL_ONLY
                and (not each or each.kind is not before.kind)
            ):
                parts.append("/")
            if each is None:
                break
            star |= each.kind is each.VAR_POSITIONAL
            if each.kind is each.KEYWORD_ONLY and not star:
                parts.append("*")
                star = True
            parts.append(argument(each, types[each.name]))
        kind = "async " if inspect.iscoroutinefunction(fn) else ""
        owner = path.split(".")[-2] if isinstance(value(path), classmethod | staticmethod) else ""
        title = f"{owner}.{name}".lstrip(".")
        tail = f" -> {returned}" if returned and not inspect.isclass(value(path)) else ""
        line = f"{kind}{title}({', '.join(parts)}){tail}"
        if len(line) > 80:
            line = "\n".join([f"{kind}{title}(", *(f"    {part}," for part in parts), f"){tail}"])
        return [f"```python\n{line}\n```", *self.legend(line, path)], types

    def legend(self, text: str, near: str) -> Iterator[str]:
        """Yield links to the types of mtaio that a signature names."""
        found = dict.fromkeys(re.findall(r"\b[A-Z]\w+", text))
        links = [self.link(name, near) for name in found if is_public(name, near)]
        if links := [link for link in links if link.startswith("[")]:
            yield f"{self.word('Types')}: " + ", ".join(links)

    def thing(self, path: str, level: int) -> Iterator[str]:
        """Yield all about a public name."""
        _, anchor = homes()[path]
        thing, title = code(path), path.rpartition(".")[2]
        anchor = f'<a id="{anchor}"></a>'
        if level > 1:
            yield anchor
        yield f"{'#' * level} `{title}`"
        if (
            level == 1
        ):  # the anchor is below: the site's search wants a page to begin with its title
            package = path.split(".")[1]
            home = "mtaio" if title in mtaio.__all__ else f"mtaio.{package}"
            yield f"{anchor}[`mtaio.{package}`](../{package}.md) · `from {home} import {title}`"
            if self.language == "ja":
                yield self.word("Text")
        if thing.is_class:
            yield from self.of_class(path, thing, level)
        elif thing.is_function:
            block, types = self.signature(path, path)
            yield from (*block, *self.docstring(thing, path, types))
        else:
            assert isinstance(thing, griffe.Attribute)
            if thing.value and not str(thing.value).startswith("TypeVar"):
                line = simple(str(thing.value))
                yield f"```python\n{title} = {line}\n```"
                yield from self.legend(line, path)
            yield from self.docstring(thing, path, {})

    def of_class(self, path: str, thing: griffe.Object, level: int) -> Iterator[str]:
        """Yield all about a class: how it is made, what it has, then its methods."""
        types: dict[str, str] = {}
        if issubclass(value(path), BaseException):
            own = value(path).__bases__
            public = [
                up for b in own for up in (b.__bases__ if b.__name__.startswith("_") else [b])
            ]
            bases = [self.link(base.__name__, path) for base in public]
            yield f"{self.word('Bases')}: " + ", ".join(bases)
        if documents(thing, "Args"):
            block, types = self.signature(path, path)
            yield from block if not issubclass(value(path), BaseException) else ()
        attributes = [m for m in members(path) if m.is_attribute or "property" in m.labels]
        types |= {each.name: type_of(each) for each in attributes if each.name not in types}
        yield from self.docstring(thing, path, types)
        listed = documents(thing, "Attributes")
        if lines := [self.attribute(m, path) for m in attributes if m.docstring or not listed]:
            yield f"**{self.word('Attributes')}**"
            yield "\n".join(lines)
        methods = [each for each in members(path) if each not in attributes]
        if level == 1:
            yield self.table([(m.name, f"#{path}.{m.name}", m) for m in methods], path)
        for each in methods:
            yield f'<a id="{path}.{each.name}"></a>'
            yield f"{'#' * (level + 1)} `{each.name}`"
            block, types = self.signature(f"{path}.{each.name}", f"{path}.{each.name}")
            yield from (*block, *self.docstring(each, f"{path}.{each.name}", types))

    def attribute(self, each: griffe.Object, owner: str) -> str:
        """Return an attribute or a property as an item of a list."""
        shown = f" (`{kind}`)" if (kind := type_of(each)) else ""
        about = "\n\n".join(self.docstring(each, f"{owner}.{each.name}", {})).replace("\n", "\n  ")
        anchor = f'<a id="{owner}.{each.name}"></a>'
        return f"- {anchor}`{each.name}`{shown}" + (f": {about}" if about else "")

    def table(self, rows: list[tuple[str, str, griffe.Object]], near: str) -> str:
        """Return a table of names, each with the first sentence about it."""
        lines = [f"| {self.word('name')} | {self.word('meaning')} |", "|---|---|"]
        for name, target, thing in rows:
            text = inspect.cleandoc(thing.docstring.value) if thing.docstring else ""
            first = self.prose(text.partition("\n\n")[0].replace("\n", " "), near)
            cell = first.replace("|", "\\|")
            lines.append(f"| [`{name}`]({target}) | {cell} |")
        return "\n".join(lines)

    def package(self, module: str) -> Iterator[str]:
        """Yield what stands in the page of a package: a table, and what has no page of its own."""
        rows = []
        for name in names(module):
            page, anchor = homes()[f"mtaio.{module}.{name}"]
            page = "" if page == self.path else page
            rows.append((name, f"{page}#{anchor}", code(f"mtaio.{module}.{name}")))
        rows.sort(key=lambda row: not row[1].endswith(f"mtaio.{module}.{row[0]}"))
        yield self.table(rows, f"mtaio.{module}.{rows[0][0]}")
        for name in names(module):
            if homes()[path := f"mtaio.{module}.{name}"] == (self.path, path):
                yield from self.thing(path, 2 + (module in MODULES))


def simple(annotation: str) -> str:
    """Return an annotation as a reader needs it: without what serves type checkers alone."""
    for pattern, shown in SIMPLE.items():
        annotation = re.sub(pattern, shown, annotation)
    return "" if annotation == "Any" else annotation


def type_of(each: griffe.Object) -> str:
    """Return the type of an attribute or a property."""
    kind = getattr(each, "annotation", None) or getattr(each, "returns", None)
    return simple(str(kind)) if kind else ""


def parameter_type(each: inspect.Parameter, many: Any) -> str:
    """Return the type of an argument: of several overloads, what the most general one says."""
    if each.annotation is each.empty:
        return ""
    found = [inspect.signature(fn).parameters.get(each.name) for fn in many]
    general = [p.annotation for p in found if p and str(p.annotation).startswith("Callable[..., ")]
    return simple(str(general[0] if general else each.annotation))


def return_type(shown: inspect.Signature, many: Any) -> str:
    """Return what a function returns: of several overloads one type, or two."""
    if shown.return_annotation is shown.empty:
        return ""
    own = str(shown.return_annotation)
    found = list(dict.fromkeys(str(inspect.signature(fn).return_annotation) for fn in many))
    if "Any" not in own or not many or (own == "Any" and "T" not in found):
        return own
    if len(found) <= 2:
        return " | ".join([each for each in found if "Any" not in each] or found)
    return re.sub(r"\bAny\b", "T", own)


def argument(each: inspect.Parameter, kind: str) -> str:
    """Return an argument as it is written; ``...`` is a default that has no value of its own."""
    stars = "*" * (each.kind is each.VAR_POSITIONAL) + "**" * (each.kind is each.VAR_KEYWORD)
    text = f"{stars}{each.name}" + (f": {kind}" if kind else "")
    if each.default is each.empty:
        return text
    default = re.sub(r"<not given>|Unset\.UNSET|<.*>", "...", shown_default(each.default))
    return f"{text} = {default}" if kind else f"{text}={default}"


def written() -> Iterator[tuple[Path, str]]:
    """Yield each file that has generated text, with the text it is to have."""
    for language in ("en", "ja"):
        folder = DOCS / language / "reference"
        for package in PACKAGES:
            page = Page(f"{package}.md", language)

            def block(found: re.Match[str], page: Page = page) -> str:
                body = "\n\n".join(page.package(found[1]))
                return f"<!-- reference: mtaio.{found[1]} -->\n\n{body}\n\n<!-- /reference -->\n"

            yield folder / page.path, BLOCK.sub(block, (folder / page.path).read_text("utf-8"))
            for name in names(package):
                path = f"mtaio.{package}.{name}"
                if homes()[path] == (f"{package}/{name}.md", path):
                    one = Page(f"{package}/{name}.md", language)
                    yield folder / one.path, "\n\n".join(one.thing(path, 1)) + "\n"
    nav = (ROOT / "mkdocs.yml").read_text("utf-8")
    yield ROOT / "mkdocs.yml", NAV.sub("".join(f"{line}\n" for line in navigation()), nav)


def navigation() -> Iterator[str]:
    """Yield the lines of mkdocs.yml that list the pages."""
    for package in PACKAGES:
        pages = [homes()[f"mtaio.{package}.{name}"][0] for name in names(package)]
        own = [page for page in dict.fromkeys(pages) if page.startswith(f"{package}/")]
        if own:
            yield f"      - mtaio.{package}:"
        for page in (f"{package}.md", *own):
            yield f"{'    ' * bool(own)}      - reference/{page}"


def rewrite() -> None:
    """Write all pages again, and remove those of classes that are gone."""
    pages = dict(written())
    for stale in {*DOCS.glob("*/reference/*/*.md")} - set(pages):
        stale.unlink()
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    rewrite()
