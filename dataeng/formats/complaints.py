"""What pydantic says of a wrong value, in one line of the house's words: what was found, what is possible."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dataeng.errors import nearest


def first_complaint(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """Returns where the first wrong value is (``reweighting.r``; empty: the whole), and what is wrong with it.

    A name that nobody knows goes first: where it is a misspelt one, "missing" is a complaint about the same mistake.
    """
    problems = error.errors()
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location, found, said = first["loc"], first["input"], first["msg"]
    where = ".".join(map(str, location))
    if first["type"] == "extra_forbidden":
        return where, f"there is no such name{nearest(str(location[-1]), _names_at(model, location[:-1]))}"
    if first["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        if known:
            return where, f"{found!r} is unknown{nearest(str(found), known)}"
    if said.startswith("Input should be "):
        expected = said.removeprefix("Input should be ").split(", ")[0]
        number = "a number " if expected.startswith(("greater", "less")) else ""
        return where, f"found {reprlib.repr(found)}, expected {number}{expected}"
    return where, said.removeprefix("Value error, ")


def _names_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Returns the fields of the model at a place; keys of mappings and numbers of lists lie between."""
    for part in location:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = next(_models_in(field.annotation), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
