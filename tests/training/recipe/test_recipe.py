"""Recipes: what is read, what is refused, and what the refusal says."""

from pathlib import Path

import pytest
import yaml

from ghnq.errors import RecipeError
from ghnq.training.recipe import dump_recipe, known_keys, load_recipe, validate_recipe
from tests.training.conftest import TINY


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_a_recipe_survives_being_written_and_read(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file)
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_overrides_reach_every_depth_and_are_yaml(file: Path) -> None:
    recipe = load_recipe(file, ["steps=9", "optimizer.lr=1e-4", "hypernet.max_shape=[8, 8, 5, 5]", "image_size=null"])
    assert (recipe.steps, recipe.optimizer.lr, recipe.image_size) == (9, 1e-4, None)
    assert recipe.hypernet.max_shape == (8, 8, 5, 5)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_recipes_as_published_have_nothing_that_was_not() -> None:
    """Table of hyperparameters of GHN-2 on CIFAR-10 (arXiv 2110.13100, appendix)."""
    for name in ("ghn-q-paper", "ghn-qat-paper"):
        recipe = load_recipe(Path(__file__).parents[3] / "recipes" / f"{name}.yaml")
        config = recipe.hypernet
        assert (config.encoder, config.hidden, config.max_shape) == ("gatedgnn", 32, (64, 64, 11, 11))
        assert (config.virtual_edges, config.layer_norm, config.normalise) == (True, True, True)
        ours = (config.identity, config.place, config.condition, config.channel_rank, config.decoder_norm)
        assert not any(ours)
        assert (config.kernel, config.depthwise, config.decoder) == ("corner", "shared", "conv")
        optimizer = recipe.optimizer
        assert (optimizer.name, optimizer.lr, optimizer.weight_decay, optimizer.clip) == ("adam", 1e-3, 1e-5, 5.0)
        assert (recipe.meta_batch, recipe.batch_size, recipe.ema, recipe.reuse) == (8, 64, 0, 1)
        assert recipe.schedule.name == "step"
        assert recipe.schedule.milestones == pytest.approx((2 / 3, 5 / 6))
        assert recipe.quantization.protocol == "paper"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("step=3", "unknown key 'step'.*did you mean 'steps'"),
        (
            "optimizer.learning_rate=1",
            r"unknown key 'optimizer.learning_rate'.*known here: optimizer.name, optimizer.lr",
        ),
        ("optimiser.lr=1", "unknown key 'optimiser'.*did you mean 'optimizer'"),
        ("steps=0", "key 'steps' is 0"),
        ("steps=many", "key 'steps' is 'many'"),
        ("steps=2.5", "key 'steps' is 2.5"),
        ("optimizer.name=sgd", "key 'optimizer.name' is 'sgd'.*'adam' or 'adamw'"),
        ("hypernet.hidden=12", "multiple of 8"),
        ("hypernet.encoder=gnn", "key 'hypernet.encoder' is 'gnn'"),
        ("workers=3", "meta_batch 2 is fewer than 3 workers"),
        ("steps", "is not KEY=VALUE"),
        ("steps.more=1", "'steps' is a value, not a group"),
        ("steps=[1", "not YAML"),
        ("schedule.name=step", "'step' needs milestones, fractions of the run"),
        ("schedule.milestones=[0.5]", "milestones belong to schedule 'step'; the schedule is 'cosine'"),
        ("schedule.milestones=[1.5]", "schedule.milestones"),
        ("schedule={name: step, milestones: [0.8, 0.6]}", r"milestones are \[0.8, 0.6\]; each must be greater"),
        ("quantization.protocol=papers", "quantization.protocol.*'deploy' or 'paper'"),
    ],
)
def test_a_wrong_key_or_value_is_explained(file: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(file, [override])


def test_what_is_not_a_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "digits.yaml").write_text("[1, 2]")
    with pytest.raises(RecipeError, match=r"did you mean 'digits\.yaml'"):
        load_recipe(tmp_path / "digit.yaml")
    with pytest.raises(RecipeError, match="must hold a mapping"):
        load_recipe(tmp_path / "digits.yaml")
    (tmp_path / "digits.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match="is not YAML"):
        load_recipe(tmp_path / "digits.yaml")
    (tmp_path / "digits.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="is not YAML"):
        load_recipe(tmp_path / "digits.yaml")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(RecipeError, match="key 'steps' is missing"):
        validate_recipe({k: v for k, v in TINY.items() if k != "steps"}, "x")


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []")
    with pytest.raises(RecipeError, match="is not YAML"):
        load_recipe(path)


def test_every_key_is_described() -> None:
    from pydantic import BaseModel

    from ghnq.training.recipe import Recipe

    def undescribed(model: type[BaseModel]) -> list[str]:
        return [name for name, field in model.model_fields.items() if not field.description]

    assert undescribed(Recipe) == []
    assert {"steps", "optimizer.lr", "hypernet.hidden", "validation.every"} <= set(known_keys())
