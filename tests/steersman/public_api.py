"""The public API as text: ``python -m tests.steersman.public_api`` prints it, for ``public_api.txt``."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import steersman
import steersman.openai


def lines() -> Iterator[str]:
    """Yield one line for each name, its public members and their signatures."""
    names = {name: getattr(steersman, name) for name in steersman.__all__}
    for name, value in sorted({**names, "openai.traced": steersman.openai.traced}.items()):
        if not inspect.isclass(value):
            yield f"{name}{signature(value)}"
        elif issubclass(value, enum.Enum):
            yield f"{name}: {' '.join(value.__members__)}"
        else:
            made = "" if getattr(value, "_is_protocol", False) else signature(value)
            yield f"{name}{made}{bases(value)}"
            yield from (f"{name}.{member}" for member in members(value))


def bases(kind: type) -> str:
    """Return the public classes that it derives from, in words."""
    found = [base.__name__ for base in kind.__mro__[1:] if base.__name__ in steersman.__all__]
    return f" is a {', '.join(found)}" if found else ""


def members(kind: type) -> Iterator[str]:
    """Yield the public members of a class, in alphabetical order."""
    fields = {field.name: field.type for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    told = re.findall(r"^(\w+) : ", (inspect.getdoc(kind) or "").partition("Attributes\n")[2], re.M)
    for name in sorted({n for n in (*vars(kind), *fields, *told) if not n.startswith("_")}):
        value = inspect.getattr_static(kind, name, None)
        if name in fields:
            yield f"{name}: {fields[name]}"
        elif isinstance(value, property):
            yield f"{name} -> {signature(value.fget).rpartition(' -> ')[2]}" if value.fget else name
        elif isinstance(value, classmethod | staticmethod):
            yield f"{name}{signature(getattr(kind, name))}"
        elif callable(value):
            yield f"{name}{signature(value)}"
        else:
            yield name


class _Text:
    """An annotation, shown without the quotes that it has where annotations are not evaluated."""

    def __init__(self, annotation: object) -> None:
        self._text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)

    def __repr__(self) -> str:
        return self._text


def signature(function: Callable[..., Any]) -> str:
    """Return a signature without what differs from run to run or from Python to Python."""
    try:
        found = inspect.signature(function)
    except ValueError:  # of an exception with the constructor of Exception
        return "(*args)"
    empty = inspect.Signature.empty
    parameters = [
        p if p.annotation is empty else p.replace(annotation=_Text(p.annotation)) for p in found.parameters.values()
    ]
    returned = empty if found.return_annotation is empty else _Text(found.return_annotation)
    text = str(found.replace(parameters=parameters, return_annotation=returned))
    return re.sub(r"<([\w.]+) object at 0x[0-9a-f]+>", r"\1()", text)


if __name__ == "__main__":
    print("\n".join(lines()))
