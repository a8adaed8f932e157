"""Predicates: small, safe expressions over columns, as rules and ``where:`` use them.

The syntax is Python's: comparisons (chains too), ``and or not``, ``+ - * /``, ``in``, names, numbers and strings::

    domain == 'web' and language in ('en', 'de')
    quality_hash_count / quality_word_count > max_symbol_ratio
    language == None                                   # true where the column is null

A name is a parameter if the preset defines one, else a column. A parameter may be a number per language: then it is
that of the row's ``language``, and null for a language that has none. Nothing else of Python is accepted. A comparison
with null, and a division by zero, is null: not true.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from dataeng.errors import ConfigError, nearest

Value = float | int | str | bool | None
PerLanguage = Mapping[str, float | int | None]
LANGUAGE = "language"
"""The column that says which of a parameter's numbers per language holds."""
MAX_CHARACTERS = 10_000
MAX_DEPTH = 100  # beyond it, nesting could exhaust the stack of the parser or of the engine that evaluates it

_COMPARISONS: dict[type[ast.cmpop], Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    # Nothing divided by nothing says nothing: null, and no comparison holds (to Polars, NaN exceeds all numbers).
    ast.Div: lambda a, b: a / b.replace(0, None),
}


class PredicateError(ConfigError):
    """A predicate is wrong."""

    def __init__(self, message: str, offset: int | None = None, option: str = "") -> None:
        super().__init__(message, option)
        self.offset = offset
        """The character of the predicate at which it is wrong, from 0; None for all of it."""


@dataclass(frozen=True)
class Predicate:
    """A parsed predicate."""

    text: str
    expr: pl.Expr
    columns: frozenset[str]
    """Columns that it reads."""
    parameters: frozenset[str]
    """Parameters that it uses."""
    sides: tuple[pl.Expr, str, pl.Expr] | None = None
    """Left side, operator and right side, if the whole predicate is one comparison of two numbers."""

    def check_type(self, schema: Mapping[str, pl.DataType]) -> None:
        """Raises `ConfigError` if, over these columns, the predicate is not something that is true or false."""
        if not self.columns:
            raise ConfigError(f"predicate '{self.text}' names no column, so it says the same of every document")
        try:
            dtype = pl.DataFrame(schema=schema).select(self.expr.alias("mask")).schema["mask"]
        except pl.exceptions.PolarsError as error:
            raise ConfigError(f"predicate '{self.text}' does not fit its columns: {_first_line(error)}") from error
        if dtype != pl.Boolean():
            raise ConfigError(f"predicate '{self.text}' is {dtype}; expected a comparison or other Boolean")

    def offset_of(self, name: str) -> int | None:
        """Returns the first character at which the predicate names a column or parameter, from 0."""
        found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", self.text)
        return found.start() if found else None

    def check(self, known: Iterable[str]) -> None:
        """Raises `ConfigError` if a column is not among ``known``."""
        known = set(known)
        for column in sorted(self.columns - known):
            message = f"predicate '{self.text}': no column '{column}'{nearest(column, known)}"
            raise PredicateError(message, self.offset_of(column))


def parse_predicate(text: str, parameters: Mapping[str, Value | PerLanguage] | None = None) -> Predicate:
    """Parses a predicate into a Polars expression.

    Raises:
      ConfigError: says what is wrong and at which character.
    """
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"predicate '{text[:60]}…' has {len(text)} characters; at most {MAX_CHARACTERS} are accepted")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        offset = error.offset if isinstance(error, SyntaxError) and error.lineno == 1 else None
        place = f" at character {offset}" if offset else ""
        message = f"predicate '{text}' is not an expression{place}"
        raise PredicateError(message, offset - 1 if offset else None) from error
    builder = _Builder(text, parameters or {})
    expr = builder.build(tree.body)
    return Predicate(text, expr, frozenset(builder.columns), frozenset(builder.used), builder.sides(tree.body))


def parameter_value(value: Value | PerLanguage) -> pl.Expr:
    """Returns a parameter as an expression: a literal, or the number of the row's language."""
    if not isinstance(value, Mapping):
        return pl.lit(value)
    return pl.col(LANGUAGE).replace_strict(
        pl.Series(list(value), dtype=pl.String),
        pl.Series([None if number is None else float(number) for number in value.values()], dtype=pl.Float64),
        default=None,
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


class _Builder:
    def __init__(self, text: str, parameters: Mapping[str, Value | PerLanguage]) -> None:
        self.text, self.parameters = text, parameters
        self.columns: set[str] = set()
        self.used: set[str] = set()
        self.depth = 0

    def build(self, node: ast.expr) -> pl.Expr:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"predicate '{self.text[:60]}…' is nested more than {MAX_DEPTH} deep")
        expr = self._build(node)
        self.depth -= 1
        return expr

    def _build(self, node: ast.expr) -> pl.Expr:
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = [self.build(value) for value in values]
                return pl.all_horizontal(parts) if isinstance(op, ast.And) else pl.any_horizontal(parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.build(operand)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.build(operand)
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _ARITHMETIC:
                return _ARITHMETIC[type(operator)](self.build(left), self.build(right))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self._compare(left, ops, comparators)
            case ast.Name(id=name):
                return self._name(name)
            case ast.Constant(value=str() | int() | float() | bool() as value):
                return self._literal(node, value)
        raise self._refuse(node)

    def sides(self, node: ast.expr) -> tuple[pl.Expr, str, pl.Expr] | None:
        """Returns what a lone comparison compares, and how."""
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _SIGNS and not (
                isinstance(right, ast.Constant) and right.value is None
            ):
                return self.build(left), _SIGNS[type(op)], self.build(right)
        return None

    def _compare(self, left: ast.expr, ops: list[ast.cmpop], comparators: list[ast.expr]) -> pl.Expr:
        parts = []
        for op, right in zip(ops, comparators, strict=True):
            parts.append(self._compare_two(left, op, right))
            left = right
        return parts[0] if len(parts) == 1 else pl.all_horizontal(parts)

    def _compare_two(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pl.Expr:
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List | ast.Set):
                raise self._refuse(right, "after 'in' comes a list, e.g. ('en', 'de')")
            items = [self._constant(item) for item in right.elts]
            if len({isinstance(item, str) for item in items}) > 1:
                raise self._refuse(right, "a list after 'in' holds either strings or numbers, not both")
            found = self.build(left).is_in(items)
            return ~found if isinstance(op, ast.NotIn) else found
        if isinstance(right, ast.Constant) and right.value is None and isinstance(op, ast.Eq | ast.NotEq):
            return self.build(left).is_null() if isinstance(op, ast.Eq) else self.build(left).is_not_null()
        if type(op) not in _COMPARISONS:
            raise self._refuse(right, "that comparison is not known here; use == != < <= > >= or in")
        return _COMPARISONS[type(op)](self.build(left), self.build(right))

    def _constant(self, node: ast.expr) -> str | int | float:
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -self._number(node, value)
            case ast.Constant(value=str() as text):
                return text
            case ast.Constant(value=int() | float() as value):
                return self._number(node, value)
        raise self._refuse(node, "a list after 'in' holds strings and numbers only")

    def _literal(self, node: ast.expr, value: str | bool | int | float) -> pl.Expr:
        return pl.lit(value if isinstance(value, str | bool) else self._number(node, value))

    def _number(self, node: ast.expr, value: int | float) -> int | float:
        if isinstance(value, bool):
            raise self._refuse(node, "a list after 'in' holds strings and numbers only")
        if isinstance(value, int) and abs(value) >= 1 << 63:
            raise self._refuse(node, "whole numbers have at most 63 bits")
        return value

    def _name(self, name: str) -> pl.Expr:
        if name in self.parameters:
            self.used.add(name)
            value = self.parameters[name]
            if isinstance(value, Mapping):
                self.columns.add(LANGUAGE)
            return parameter_value(value)
        self.columns.add(name)
        return pl.col(name)

    def _refuse(self, node: ast.expr, why: str = "") -> PredicateError:
        piece = ast.get_source_segment(self.text, node) or type(node).__name__
        reason = why or "only comparisons, and/or/not, arithmetic, in, names, numbers and strings are accepted"
        lines = self.text.split("\n")
        line = lines[min(node.lineno, len(lines)) - 1].encode()
        character = len(line[: node.col_offset].decode(errors="replace")) + 1  # Python counts bytes
        message = f"predicate '{self.text}', at '{piece}' (character {character}): {reason}"
        return PredicateError(message, character - 1 if node.lineno == 1 else None)
