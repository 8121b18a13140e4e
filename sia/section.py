"""A section of a configuration and its keys, a setting of several kinds, and the one line that refuses what is wrong.

This module loads no torch.
"""

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from typing_extensions import Self

from sia.errors import UsageError

UNKNOWN = ("extra_forbidden", "not_of_this_kind")  # pydantic's name of such a fault, and ours
# What to do about a value, by pydantic's name of its fault, filled with what it tells of it.
CURES = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "give a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "give a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "give true or false"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "give keys with their values"),
    **dict.fromkeys(("string_type", "string_unicode"), "give a text, in quotes if it looks like a number"),
    "string_pattern_mismatch": "use letters, digits, '.', '_' and '-', a letter or digit first",
    "finite_number": "give a number that is not infinite",
    "list_type": "give a list, such as [1, 2] or ['a']",
    "too_short": "give {min_length} or more values",
    "too_long": "give {max_length} values or fewer",
    "greater_than": "give more than {gt:g}",
    "invalid_key": "keys are text, in quotes if they look like numbers",
    "less_than": "give less than {lt:g}",
    "greater_than_equal": "give {ge:g} or more",
    "less_than_equal": "give {le:g} or less",
    "multiple_of": "give a multiple of {multiple_of:g}",
    "literal_error": "use {expected}",
    "missing": "it is missing",
    "extra_forbidden": "no such key is known",
}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Kind(Section):
    """A setting of several kinds, told apart by `name`, each a class with its own keys and defaults.

    A family (losses, say) is a subclass with a `default`; its kinds are its subclasses that give `name` a value.
    To define one is all that makes it known. Its name alone stands for it with its defaults.
    """

    default: ClassVar[str]
    name: str

    @classmethod
    def kinds(cls) -> dict[str, type[Self]]:
        found: dict[str, type[Self]] = {}
        for below in cls.__subclasses__():
            if not below.is_family():
                found[below.model_fields["name"].default] = below
            found |= below.kinds()
        return found

    @classmethod
    def is_family(cls) -> bool:
        return cls.model_fields["name"].is_required()

    @model_validator(mode="wrap")
    @classmethod
    def _as_its_kind(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        values = {"name": value} if isinstance(value, str) else value
        if not cls.is_family() or not isinstance(values, Mapping):
            return handler(values)
        kinds, wanted = cls.kinds(), values.get("name", cls.default)
        kind = next((kind for name, kind in kinds.items() if name == wanted), None)
        if kind is None:
            place = () if isinstance(value, str) else ("name",)
            raise _fault("no_such_kind", f"use {_either(list(kinds))}", place, wanted)
        for key in values:
            if key not in kind.model_fields:
                valid = [field for field in kind.model_fields if field != "name"]
                takes = f"{wanted} takes {', '.join(valid) or 'no settings'}"
                raise _fault("not_of_this_kind", takes, (str(key),), valid)
        return kind.model_validate(values)


def _fault(name: str, message: str, place: tuple[str, ...], given: Any) -> ValidationError:
    # The message must not be taken for a template.
    error = PydanticCustomError(name, "{message}", {"message": message})  # type: ignore[arg-type]
    return ValidationError.from_exception_data("", [InitErrorDetails(type=error, loc=place, input=given)])


def _either(names: list[str]) -> str:
    quoted = [repr(name) for name in names]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]]) if quoted[1:] else quoted[0]


def validate(model: type[Any], values: Any, source: str) -> Any:
    """`values` as a `model`. Raises UsageError with one line: source, key, what is wrong and what is allowed."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{source}: {_one_line(error, model)}") from None


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    # An unknown key is reported before the wrong values, because it may be the cause of them.
    first = min(error.errors(), key=lambda fault: fault["type"] not in UNKNOWN)
    # Items count from 1, as stages do everywhere else; of a key that is wrong itself, its name is the value.
    of_key = first["loc"][-1:] == ("[key]",)
    place = [str(part + 1) if isinstance(part, int) else str(part) for part in first["loc"][: -2 if of_key else None]]
    dotted = ".".join(place)
    if first["type"] == "not_of_this_kind":
        close = difflib.get_close_matches(place[-1], first["input"], n=1, cutoff=0.8)
        meant = [f"; the nearest valid one is {'.'.join([*place[:-1], one])!r}" for one in close]
        return f"unknown key {dotted!r}{''.join(meant)}; {first['msg']}"
    if first["type"] != "extra_forbidden":
        return ": ".join(
            [*filter(None, [dotted, "its keys" if of_key else ""]), cure_of(first) + _told(first["input"])]
        )
    number = next((part for part in place if part.isdecimal()), "1")
    near = _nearest(dotted, known_keys(model, number))
    return f"unknown key {dotted!r}; the nearest valid one is {near!r}"


def _told(value: Any) -> str:
    """What was given, as YAML has it."""
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return f", not {shown}" if isinstance(value, (str, int, float, list)) else ""


def cure_of(fault: ErrorDetails) -> str:
    """What pydantic found, as a person says it; what a validator of ours said, as it said it."""
    if (cure := CURES.get(fault["type"])) is not None:
        return cure.format(**fault.get("ctx", {}))
    return fault["msg"].removeprefix("Value error, ")


def _nearest(dotted: str, known: list[str]) -> str:
    """A key that is clearly meant, wherever it stands; else the most similar one of the same section."""
    known = [key for key in known if not dotted.startswith(f"{key}.")]
    section = dotted.rpartition(".")[0]
    siblings = [key for key in known if key.rpartition(".")[0] == section] or known
    clearly = difflib.get_close_matches(dotted, known, n=1, cutoff=0.8)
    return (clearly or difflib.get_close_matches(dotted, siblings, n=1, cutoff=0.0) or known)[0]


def known_keys(model: type[BaseModel], number: str, prefix: str = "") -> list[str]:
    """The dotted keys below `model`, of a setting of several kinds those of all; `number` is the place in a list."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        kind, below = field.annotation, f"{prefix}{name}."
        if get_origin(kind) is list:
            kind, below = get_args(kind)[0], f"{below}{number}."
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for one in kind.kinds().values() if issubclass(kind, Kind) else [kind]:
                keys += known_keys(one, number, below)
    return keys
