"""What people set: typed models, and what is wrong with a setting in the words it was set with."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

SHOWN_CHARS = 80  # of a wrong value


class Settings(BaseModel):
    """Values that somebody wrote. A rule over several fields raises ValueError, "{at} needs {ask}":
    names in braces are spelled as whoever reads the message knows them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def explain(error: ValidationError, spell: Callable[[str], str] = str) -> str:
    """The first thing that is wrong, as a sentence for people. spell: from a field to its name.

    The fields of a section are "section.field".
    """
    first = error.errors(include_url=False)[0]
    name = ".".join(step for step in first["loc"] if isinstance(step, str))
    context = first.get("ctx", {})
    if first["type"] == "value_error":
        rule = str(context["error"]).format_map(_Spelled(spell))
        return f"{spell(name)}: {rule}" if name else rule
    if first["type"] == "missing":
        return f"{spell(name)} is missing"
    if first["type"] == "extra_forbidden":
        return f"there is no {spell(name)}"
    limits = {key: f"{value:g}" for key, value in context.items() if isinstance(value, float)}
    rule = _RULES.get(first["type"], first["msg"]).format_map(context | limits)
    return f"{spell(name)} {rule}, got {shown(first['input'])}"


def shown(value: object) -> str:
    """A word as it is, anything else as JSON, cut where it is long."""
    is_word = isinstance(value, str) and len(value.split()) == 1 and value.isprintable()
    text = str(value) if is_word else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


class _Spelled(dict[str, str]):
    def __init__(self, spell: Callable[[str], str]) -> None:
        self._spell = spell

    def __missing__(self, name: str) -> str:
        return self._spell(name)


_NUMBER, _WHOLE, _LIST = "must be a number", "must be a whole number", "must be a list"
_RULES: Mapping[str, Any] = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_type": _WHOLE,
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": _LIST,
    "literal_error": "must be {expected}",
    "model_type": "must hold named values",
    "path_type": "must be a path",
    "string_type": "must be a text",
    "tuple_type": _LIST,
}
