"""Messages about invalid keys: the key, its value, the allowed range; no message of pydantic."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ghnq.hypernet.config import GHNConfig, Task
from ghnq.spaces.convnets.specs import Spec
from ghnq.training.recipe import Recipe
from ghnq.validation_errors import explain

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)
Share = Annotated[float, Field(ge=0, lt=1)]


class Circle(BaseModel):
    model_config = _STRICT

    kind: Literal["circle"] = "circle"
    radius: float = Field(gt=0)


class Square(BaseModel):
    model_config = _STRICT

    kind: Literal["square"] = "square"
    side: int = Field(ge=1, le=9)


class Model(BaseModel):
    model_config = _STRICT

    steps: int = Field(default=1, ge=1)
    size: int | None = Field(default=None, ge=8, le=64)
    betas: tuple[Share, Share] = Field(default=(0.5, 0.5), strict=False)
    mix: dict[str, Annotated[float, Field(strict=False, allow_inf_nan=False, gt=0.25)]] = {}
    names: tuple[str, ...] = Field(default=("a",), min_length=1, strict=False)
    flag: bool = False
    note: str = ""
    shape: Annotated[Circle | Square, Field(discriminator="kind")] = Circle(radius=1.0)
    name: Literal["adam", "adamw"] = "adam"

    @model_validator(mode="after")
    def _check(self) -> Model:
        if self.steps == 13:
            raise ValueError("steps is 13; it must not be")
        return self


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "key 'steps' is 0; it must be at least 1"),
        ({"steps": 2.5}, "key 'steps' is 2.5; it must be an integer"),
        ({"steps": "many"}, "key 'steps' is 'many'; it must be an integer"),
        ({"steps": True}, "key 'steps' is True; it must be an integer"),
        ({"steps": 13}, "steps is 13; it must not be"),
        ({"size": 7}, "key 'size' is 7; it must be at least 8 and at most 64"),
        ({"size": 65}, "key 'size' is 65; it must be at least 8 and at most 64"),
        ({"betas": [0.5, 1]}, "key 'betas.1' is 1; it must be at least 0 and less than 1"),
        ({"betas": [0.5]}, "key 'betas.1' is missing"),
        ({"betas": 3}, "key 'betas' is 3; it must be a list"),
        ({"mix": {"w4a8": 0}}, "key 'mix.w4a8' is 0; it must be greater than 0.25"),
        ({"mix": {"w4a8": float("inf")}}, "key 'mix.w4a8' is inf; it must be a finite number"),
        ({"mix": {"w4a8": "often"}}, "key 'mix.w4a8' is 'often'; it must be a number"),
        ({"mix": [1]}, "key 'mix' is [1]; it must be a mapping of keys to values"),
        ({"names": []}, "key 'names' is []; it must be at least 1 value long"),
        ({"names": 1}, "key 'names' is 1; it must be a list"),
        ({"note": 1}, "key 'note' is 1; it must be a string"),
        ({"flag": "yes"}, "key 'flag' is 'yes'; it must be true or false"),
        (
            {"shape": {"kind": "square", "side": 10}},
            "key 'shape.square.side' is 10; it must be at least 1 and at most 9",
        ),
        ({"shape": {"kind": "circle", "radius": 0}}, "key 'shape.circle.radius' is 0; it must be greater than 0"),
        (
            {"shape": {"kind": "star"}},
            "key 'shape' is {'kind': 'star'}; it must be a mapping with the key 'kind', one of 'circle', 'square'",
        ),
        ({"shape": {}}, "key 'shape' is {}; it must be a mapping with the key 'kind'"),
        ({"name": "sgd"}, "key 'name' is 'sgd'; it must be 'adam' or 'adamw'"),
        ({"nam": 1}, "unknown key 'nam'"),
        (3, "the value is 3; it must be a mapping of keys to values"),
        ({"steps": 0, "flag": 1}, "key 'steps' is 0; it must be at least 1; key 'flag' is 1; it must be true or false"),
    ],
)
def test_message(values: object, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate(values)
    assert explain(caught.value, Model) == message


def test_long_values_are_cut() -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"note": ["x" * 1000]})
    assert len(explain(caught.value, Model)) < 140


def test_text_that_is_not_json() -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate_json("{")
    assert explain(caught.value, Model).startswith("not valid JSON (")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("model", [Recipe, GHNConfig, Task, Spec])
@given(data=st.data())
def test_no_message_of_pydantic_is_left(model: type[BaseModel], data: st.DataObject) -> None:
    keys = st.sampled_from(sorted(model.model_fields)) | st.text(max_size=5)
    values = data.draw(st.dictionaries(keys, VALUES, max_size=4))
    try:
        model.model_validate(values)
    except ValidationError as error:
        message = explain(error, model)
        assert "Input should" not in message
        assert "of another form" not in message
