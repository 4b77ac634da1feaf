"""A tool for sums."""

from __future__ import annotations

import ast
import operator

from runtime.errors import ToolFailed
from runtime.tools.function import tool

_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_LARGEST = 10**100


@tool
def calc(expression: str) -> int | float:
    """The value of a sum with + - * / // % and parentheses, such as (3+4)*5."""
    try:
        return _value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError) as fault:
        raise ToolFailed(f"'{expression}' cannot be worked out: {fault}") from fault


def _value(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=of):
            return -_value(of)
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
            found: int | float = _OPERATIONS[type(operation)](_value(left), _value(right))
            if abs(found) > _LARGEST:
                raise ValueError("the number is too large")
            return found
    raise ValueError("only numbers, + - * / // % and parentheses are known")
