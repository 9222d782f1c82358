"""What is scraped, and under which labels."""

from typing import Annotated

from pydantic import Field, field_validator

from sim.scenario.kinds import Fraction, Model
from sim.words import show

LabelName = Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9_]*$", max_length=64)]
TAKEN = ("le", "code", "engine", "finished_reason", "outcome")


class Telemetry(Model):
    """The series that a Prometheus would have scraped (docs/reference/series.md)."""

    labels: dict[LabelName, str] = {}
    """Labels of every series, such as `namespace: prod` and `pod: "vllm-{pool}-{replica}"`; also other values for
    `job`, `instance` and `model_name` of the replicas."""
    evaluate: Fraction = 0.05
    """Share of answers whose correctness an evaluator looks at."""

    @field_validator("labels")
    @classmethod
    def _free(cls, labels: dict[str, str]) -> dict[str, str]:
        for name in labels:
            if name in TAKEN:
                raise ValueError(f"expected other labels than {', '.join(TAKEN)}, which series have, got {show(name)}")
        return labels
