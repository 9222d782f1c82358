"""The kinds of value a scenario is made of: closed mappings, choices, seconds, fractions, counts, names, files."""

import os
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    SerializationInfo,
    Tag,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from sim import units
from sim.scenario.files import find_file
from sim.words import show


class Model(BaseModel):
    """A mapping with a closed set of keys, read strictly and never changed afterwards."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class OneOf(Model):
    """A mapping with exactly one of several keys: ``{lognormal: {median: 300, sigma: 0.7}}``."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    @model_validator(mode="before")
    @classmethod
    def _exactly_one(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.keys() <= cls.model_fields.keys():
            chosen = [key for key, value in data.items() if value is not None]
            if len(chosen) != 1:
                keys = ", ".join(cls.model_fields)
                raise ValueError(f"expected exactly one of {keys}, got {' and '.join(chosen) or 'none of them'}")
        return data

    @model_serializer(mode="wrap")
    def _only_the_chosen(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}

    @property
    def choice(self) -> tuple[str, Any]:
        """The key that is set, and what it holds: made for ``match``."""
        return next((key, value) for key, value in self if value is not None)


PLAIN, MAPPING, LIST = Tag("<plain>"), Tag("<mapping>"), Tag("<list>")
"""Mark the sides of a `by_form` union. No key of a file looks like this, so messages can leave tags out."""


def by_form(words: str, is_plain: Callable[[object], bool]) -> Discriminator:
    """Choose between a plain value, a mapping and a list by how it is written, so that only one of them complains.

    What is none of them was expected to be *words*.
    """

    def tag(value: object) -> str | None:
        if isinstance(value, dict | BaseModel):
            return MAPPING.tag
        if isinstance(value, list):
            return LIST.tag
        return PLAIN.tag if is_plain(value) else None

    return Discriminator(tag, custom_error_type="choice", custom_error_message=words)


def by_key(what: str, *kinds: str) -> Discriminator:
    """Choose a mapping by which of the keys *kinds* it has; its tag is that key in angle brackets.

    What has none of them, or two, is told that *what* was expected.
    """

    def tag(value: object) -> str | None:
        if isinstance(value, dict):
            found = [kind for kind in kinds if kind in value]
            return f"<{found[0]}>" if len(found) == 1 else None
        return f"<{next(iter(type(value).model_fields))}>" if isinstance(value, BaseModel) else None

    return Discriminator(tag, custom_error_type="kind", custom_error_message=f"{what}: {', '.join(kinds)}")


def _whole(value: object) -> object:
    """Read 10e6 as the whole number it is; leave everything else to the strict check."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _above_zero(value: float) -> float:
    if value <= 0:
        raise ValueError(f"expected {units.DURATION_WORDS}, greater than 0, got {show(value)}")
    return value


def _found(value: str, info: ValidationInfo) -> str:
    """Return *value* as a path from where the command runs; it must be there, unless the context does without."""
    context = info.context or {}
    try:
        return find_file(value, context.get("folder"))
    except ValueError:
        if context.get("need_files", True):
            raise
        return value


def _seen_from(value: str, info: SerializationInfo) -> str:
    """Return the path *value* as the context's folder sees it, where there is one."""
    folder = (info.context or {}).get("folder")
    return os.path.relpath(value, folder) if folder and os.path.isfile(value) and not os.path.isabs(value) else value


def _found_if_json(value: str, info: ValidationInfo) -> str:
    return _found(value, info) if value.endswith(".json") else value


def _listed(value: object) -> object:
    return [] if value is None else [value] if isinstance(value, str) else value


def _none_is_a_word(value: object) -> object:
    return "none" if value is None else value


def _code_found(value: str, info: ValidationInfo) -> str:
    """Return *value*, ``module:function``, with the module's file in place of its name where that lies at hand."""
    module, _, function = value.rpartition(":")
    name = module if module.endswith(".py") else module.replace(".", "/") + ".py"
    context = info.context or {}
    try:
        return f"{find_file(name, context.get('folder'))}:{function}"
    except ValueError:
        if name == module and context.get("need_files", True):
            raise
        return value


def _code_seen_from(value: str, info: SerializationInfo) -> str:
    module, _, function = value.rpartition(":")
    return f"{_seen_from(module, info)}:{function}"


_SECONDS = Annotated[float, Field(ge=0)]
_DURATION_TEXT = Annotated[str, Field(pattern=rf"^{units.DURATION_TOKEN}$", examples=["250ms", "5m", "1h30m"])]
_FRACTION_NUMBER = Annotated[float, Field(ge=0, le=1)]
_PERCENTAGE = Annotated[str, Field(pattern=rf"^{units.NUMBER}\s*%$", examples=["5%"])]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
SLUG_PATTERN = r"^[a-z0-9][a-z0-9-]*$"

CODE_PATTERN = r"^[^:]+:[A-Za-z_][A-Za-z0-9_]*$"
TARGET_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*(/(\d{1,7}(-\d{1,7})?|zone-\d{1,7}))?$"

Whole = BeforeValidator(_whole, json_schema_input_type=int)
NoneIsAWord = BeforeValidator(_none_is_a_word)

Duration = Annotated[float, BeforeValidator(units.duration_s, json_schema_input_type=_SECONDS | _DURATION_TEXT)]
LongerThanZero = Annotated[Duration, AfterValidator(_above_zero)]
Fraction = Annotated[float, BeforeValidator(units.fraction, json_schema_input_type=_FRACTION_NUMBER | _PERCENTAGE)]
Quantity = Annotated[float, BeforeValidator(units.quantity, json_schema_input_type=float | str)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000), Whole]
SmallCount = Annotated[int, Field(ge=1, le=1_048_576), Whole]
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
Target = Annotated[str, Field(pattern=TARGET_PATTERN, max_length=80)]
Slug = Annotated[str, Field(pattern=SLUG_PATTERN, max_length=64)]
File = Annotated[str, AfterValidator(_found), PlainSerializer(_seen_from)]
Files = Annotated[list[File], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
NameOrJson = Annotated[str, AfterValidator(_found_if_json), PlainSerializer(_seen_from)]
Code = Annotated[str, Field(pattern=CODE_PATTERN), AfterValidator(_code_found), PlainSerializer(_code_seen_from)]
