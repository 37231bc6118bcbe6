"""COLUMN=VALUE and the like, on columns of any simple type."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from indexer.errors import UsageError

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    "!=": pc.not_equal,
    "==": pc.equal,
    "=": pc.equal,
    ">": pc.greater,
    "<": pc.less,
}
_CONDITION = re.compile(r"\s*(?P<column>[^=<>!]+?)\s*(?P<operator>>=|<=|!=|==|=|<|>)\s*(?P<value>.*?)\s*", re.DOTALL)
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A column, an operator of the list above, and the value as it was typed."""

    column: str
    operator: str
    value: str


def parse_condition(text: str) -> Condition:
    """Raises UsageError if the text is no condition."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UsageError(f"a condition is COLUMN=VALUE, or with != < <= > >= between them, got {text!r}")
    return Condition(column=found["column"], operator=found["operator"], value=found["value"])


def compare(column: pa.ChunkedArray, condition: Condition) -> pa.ChunkedArray:
    """Where a column fulfils the condition: boolean, null where the column is.

    Raises:
        UsageError: the value is not of the column's type, or nothing can be compared with such a column.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):  # no value at all
        return pa.chunked_array([pa.nulls(len(column), pa.bool_())])
    return _OPERATORS[condition.operator](column, _value(column.type, condition))


def _value(type_: pa.DataType, condition: Condition) -> pa.Scalar:
    what, text = "", condition.value
    try:
        if pa.types.is_string(type_) or pa.types.is_large_string(type_):
            return pa.scalar(text, type_)
        if pa.types.is_boolean(type_):
            what = "true or false"
            return pa.scalar(_BOOLEANS[text.lower()])
        if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
            what = "a number"
            return pa.scalar(int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else float(text))
        if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
            what = "a date or time such as 2025-03-31"
            return _time(type_, text)
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise UsageError(
            f"the column {condition.column!r} holds {type_}: compare it with {what}, got {text!r}"
        ) from error
    raise UsageError(f"the column {condition.column!r} holds {type_}, which cannot be compared: choose another")


def _time(type_: pa.DataType, text: str) -> pa.Scalar:
    time = datetime.datetime.fromisoformat(text)
    if pa.types.is_date(type_):
        return pa.scalar(time).cast(pa.timestamp("us"))
    zoned = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
    zoned = zoned.astimezone(datetime.UTC)
    if type_.tz is None:
        return pa.scalar(zoned.replace(tzinfo=None), pa.timestamp("us"))
    return pa.scalar(zoned, pa.timestamp("us", tz="UTC"))
