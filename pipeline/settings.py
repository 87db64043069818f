"""What people set: typed models, and what is wrong with a setting in the words it was set with."""

import json
import re
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any, Literal, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

_NAMED = re.compile(r"\{(\w+)\}")
MERGED = "tag:yaml.org,2002:merge"
SHOWN_CHARS = 80  # of a wrong value


class Settings(BaseModel):
    """Values that somebody wrote. A rule over several fields raises ValueError, "{at} needs {ask}":
    names in braces are spelled as whoever reads the message knows them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _take_no_truth_for_a_number(cls, values: Any) -> Any:
        """To Python, and so to pydantic, true is 1."""
        if not isinstance(values, Mapping):
            return values
        wrong: list[InitErrorDetails] = [
            {"type": PydanticCustomError(rule, "a number"), "loc": (name,), "input": values[name]}
            for name, field in cls.model_fields.items()
            if name in values and (rule := _number_rule(cast(Hashable, field.annotation)))
            if _holds_truth(values[name])
        ]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return values


@cache
def _number_rule(annotation: Hashable) -> Literal["float_type", "int_type", ""]:
    """The rule that a field breaks which holds true or false; "" for one that is no number."""
    kinds = _kinds(annotation)
    if bool in kinds or not kinds & {int, float}:
        return ""
    return "float_type" if float in kinds else "int_type"


def _kinds(annotation: Any) -> set[Any]:
    """Every type that an annotation names, however deep."""
    return {annotation}.union(*map(_kinds, get_args(annotation)))


def _holds_truth(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_truth, value))
    return isinstance(value, bool)


def load_yaml(text: str | bytes) -> Any:
    """What a file of settings says. YAMLError for one that says something twice."""
    loader = _OnceEach(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _OnceEach(yaml.SafeLoader):
    """YAML forbids to give a name two values; the library takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set[str]()
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode) or name.tag == MERGED:
                continue
            if name.value in names:
                mark = name.start_mark
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name.value} is there twice", mark
                )
            names.add(name.value)
        return super().construct_mapping(node, deep)


def explain(error: ValidationError, spell: Callable[[str], str] = str) -> str:
    """The first thing that is wrong, as a sentence for people; a name that is none comes before a
    field that is missing for it. spell: from a field to its name.

    The fields of a section are "section.field".
    """
    errors = error.errors(include_url=False)
    unknown = (each for each in errors if each["type"] == "extra_forbidden")
    first = next(unknown, errors[0])
    if _kind(first) is None:
        return sentence(first, spell)
    kinds = [each for each in errors if _kind(each) and each["loc"][:-1] == first["loc"][:-1]]
    rules = ", or ".join(dict.fromkeys(_rule(each).removeprefix("must be ") for each in kinds))
    name = spell(_name(first))
    return f"{name} must be {rules}, got {shown(first['input'])}"


def sentence(first: Any, spell: Callable[[str], str] = str) -> str:
    """The same of one of pydantic's errors."""
    name = _name(first)
    context = first.get("ctx", {})
    if first["type"] == "value_error":
        rule = _NAMED.sub(lambda named: spell(named[1]), str(context["error"]))
        return f"{spell(name)}: {rule}" if name else rule
    if first["type"] == "missing":
        return f"{spell(name)} is missing"
    if first["type"] == "extra_forbidden":
        return f"there is no {spell(name)}"
    is_bare = first["type"] == "string_type" and isinstance(first["input"], bool)
    hint = " (in YAML yes, no, on and off are such: put them in quotes)" if is_bare else ""
    return f"{spell(name)} {_rule(first)}, got {shown(first['input'])}{hint}"


def _name(error: Any) -> str:
    steps = [step for step in error["loc"] if isinstance(step, str)]
    return ".".join(steps if _kind(error) is None else steps[:-1])


def _kind(error: Any) -> str | None:
    """Of a value that may be of several kinds: which this is of, as pydantic has it."""
    last = error["loc"][-1] if error["loc"] else None
    return last if isinstance(last, str) and re.match(r"literal\[|constrained-", last) else None


def _rule(error: Any) -> str:
    context = error.get("ctx", {})
    limits = {key: f"{value:g}" for key, value in context.items() if isinstance(value, float)}
    known = _RULES.get(error["type"])  # pydantic's own words may quote a value, braces and all
    return str(known.format_map(context | limits) if known else error["msg"])


def shown(value: object) -> str:
    """A word as it is, anything else as JSON, cut where it is long."""
    is_word = isinstance(value, str) and len(value.split()) == 1 and value.isprintable()
    try:
        text = str(value) if is_word else json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:  # what could just be read cannot always be written
        return "what is nested too deep"
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


def plain(number: float | None) -> str:
    """A whole number to its last digit, another to twelve of them; "" where there is none."""
    if number is None:
        return ""
    return str(number) if isinstance(number, int) else f"{number:.12g}"


_NUMBER, _WHOLE, _LIST = "must be a number", "must be a whole number", "must be a list"
_NAMED_VALUES = "must hold named values"
_RULES: Mapping[str, Any] = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": _NAMED_VALUES,
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
    "model_attributes_type": _NAMED_VALUES,
    "model_type": _NAMED_VALUES,
    "path_type": "must be a path",
    "string_too_short": "must be at least {min_length} long",
    "string_type": "must be a text",
    "too_long": "must be at most {max_length} long",
    "too_short": "must be at least {min_length} long",
    "tuple_type": _LIST,
    "union_tag_invalid": "must have a {discriminator} of {expected_tags}",
    "union_tag_not_found": "must have a {discriminator}",
}
