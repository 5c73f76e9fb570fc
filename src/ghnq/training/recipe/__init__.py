"""What a recipe may say, and how it is read."""

from __future__ import annotations

from ghnq.training.recipe.recipe_file import dump_recipe as dump_recipe
from ghnq.training.recipe.recipe_file import known_keys as known_keys
from ghnq.training.recipe.recipe_file import load_recipe as load_recipe
from ghnq.training.recipe.recipe_file import validate_recipe as validate_recipe
from ghnq.training.recipe.schema import Curriculum as Curriculum
from ghnq.training.recipe.schema import Quantization as Quantization
from ghnq.training.recipe.schema import Recipe as Recipe
from ghnq.training.recipe.schema import Schedule as Schedule
