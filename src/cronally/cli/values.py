"""Words of the command line as values: text, whole numbers, numbers, flags, and lists of text.

typer reads them with pydantic, which takes 75 ms to import, half of what a short command takes, to say "Input should be a
valid integer, unable to parse string as an integer". These few kinds need neither.
"""

from math import inf
from typing import Any, get_args, get_origin

import typer


class PlainValue:
    """What typer asks to read the value of one parameter. Made for str, int, float, bool, and lists of str."""

    def __init__(self, kind: Any, least: float | None, most: float | None) -> None:
        self._kind = kind
        self._least = least
        self._most = most

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value that *value* (text, a sequence of texts, or a default) means. Errors: BadParameter."""
        is_many = param.multiple or param.nargs == -1
        if is_many:
            return list(value or ())
        if value is None or not isinstance(value, str) or self._kind is str:
            return value
        if self._kind is bool:
            return value.lower() in ("1", "true", "yes", "on")
        try:
            number = self._kind(value)
        except ValueError:
            wanted = "a whole number" if self._kind is int else "a number"
            raise typer.BadParameter(f"{value[:50]!r} is not {wanted}", ctx=ctx, param=param) from None
        if not self._is_within(number):
            bounds = (
                f"from {self._least:,} to {self._most:,}"
                if self._most is not None
                else f"{self._least:,} or more"
            )
            raise typer.BadParameter(f"{value[:50]!r} is not {bounds}", ctx=ctx, param=param)
        return number

    def _is_within(self, number: float) -> bool:
        if self._least is None:
            return True
        return self._least <= number <= (inf if self._most is None else self._most)  # not so for NaN, either


def read_plainly(command: Any) -> Any:
    """Let *command*'s parameters be read as PlainValue where their kind allows; return the command.

    A typer that does not ask for it (``get_runtime_param``) reads them its own way, with the same result.
    """
    of_command = command.get_params

    def get_params(ctx: Any) -> Any:
        params = of_command(ctx)  # with --help, which is made here
        for param in params:
            _read_plainly(param)
        return params

    command.get_params = get_params
    return command


def _read_plainly(param: Any) -> None:
    descriptor = getattr(param, "type_descriptor", None)
    if descriptor is None:
        return
    kind, about = descriptor.annotation, descriptor.parameter_info
    if kind in (str, int, float, bool) or (get_origin(kind) is list and get_args(kind) == (str,)):
        plain = PlainValue(kind, getattr(about, "min", None), getattr(about, "max", None))
        param.get_runtime_param = lambda: plain
