"""What a right answer looks like: checks that a load test holds the answers of a real endpoint to."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from sim.scenario.kinds import LIST, MAPPING, PLAIN, Code, File, Fraction, Model, Name, by_form
from sim.words import show

Wrong = Literal["format", "refusal", "hallucination", "tool_error"]
"""What is the matter with an answer that fails a check."""
WRONG: tuple[Wrong, ...] = get_args(Wrong)
USUAL: dict[str, Wrong] = {
    "json_schema": "format",
    "matches": "format",
    "refuses": "refusal",
    "python": "hallucination",
}
"""Ways to check an answer, and what is usually the matter with one that fails."""


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"expected a regular expression, got {show(pattern)} ({error})") from None
    return pattern


Regex = Annotated[str, Field(min_length=1), AfterValidator(_compiles)]


class AnswerCheck(Model):
    """What answers must be, said in one of four ways: `json_schema`, `matches`, `refuses` or `python`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [way]} for way in USUAL]})

    json_schema: (
        Annotated[
            Annotated[File, PLAIN] | Annotated[dict[str, Any], MAPPING],
            by_form("a file, or a JSON Schema", lambda value: isinstance(value, str)),
        ]
        | None
    ) = None
    """The answer is JSON as this JSON Schema says: a file, or the schema itself."""
    matches: Regex | None = None
    """A regular expression (Python's) that is found in the answer."""
    refuses: (
        Annotated[
            Annotated[Literal[True], PLAIN] | Annotated[list[Regex], Field(min_length=1), LIST],
            by_form("true or a list of regular expressions", lambda value: value is True),
        ]
        | None
    ) = None
    """A refusal is the failure: true for the phrases that models use, or a list of regular expressions, in any case."""
    python: Code | None = None
    """A function of your own, `judge.py:is_right`: it gets the text of the answer and what was asked, and returns True
    or False. Looked for as control processes are."""
    cohorts: list[Name] = []
    """Whose answers; none: everybody's."""
    kind: Wrong | None = None
    """What is the matter with an answer that fails; left out, format, or refusal for `refuses`, hallucination for
    `python`."""
    share: Fraction | None = None
    """Share of answers that are checked; left out, `telemetry.evaluate`."""

    @model_validator(mode="after")
    def _one_way(self) -> "AnswerCheck":
        given = [way for way in USUAL if getattr(self, way) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(USUAL)}, got {' and '.join(given) or 'none of them'}")
        return self

    @property
    def way(self) -> str:
        """Which of the four ways it is said in."""
        return next(way for way in USUAL if getattr(self, way) is not None)

    @property
    def wrong(self) -> Wrong:
        """What is the matter with an answer that fails."""
        return self.kind or USUAL[self.way]
