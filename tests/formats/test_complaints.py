"""Pydantic's complaints in the house's words."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dataeng.formats.complaints import first_complaint


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    weight: float = Field(default=1, gt=0, le=2)
    kind: Literal["plain", "chat"] = "plain"


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    steps: int
    parts: dict[str, Part] = {}
    more: list[Part] | None = None

    @model_validator(mode="after")
    def _few(self) -> Whole:
        if self.steps > 9:
            raise ValueError("too many steps")
        return self


@pytest.mark.parametrize(
    ("values", "where", "what"),
    [
        ({"stebs": 1}, "stebs", "there is no such name; did you mean 'steps'?"),
        (
            {"steps": 1, "parts": {"weight": {"wieght": 1}}},
            "parts.weight.wieght",
            "there is no such name; did you mean 'weight'?",
        ),
        ({"steps": 1, "more": [{"kin": "chat"}]}, "more.0.kin", "there is no such name; did you mean 'kind'?"),
        ({"steps": 1, "parts": {"a": {"kind": "plane"}}}, "parts.a.kind", "'plane' is unknown; did you mean 'plain'?"),
        ({"steps": 1, "parts": {"a": {"weight": 0}}}, "parts.a.weight", "found 0, expected a number greater than 0"),
        ({"steps": "many"}, "steps", "found 'many', expected a valid integer"),
        ({"steps": 1.5}, "steps", "found 1.5, expected a valid integer"),
        ({}, "steps", "Field required"),
        ({"steps": 10}, "", "too many steps"),
    ],
)
def test_a_complaint_says_what_was_found_and_what_is_possible(values: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(values)
    assert first_complaint(caught.value, Whole) == (where, what)
