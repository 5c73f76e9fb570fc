"""Recipes and the loop that follows them."""

from ghnq.runs.interrupt import Interrupted as Interrupted
from ghnq.training.recipe import Recipe as Recipe
from ghnq.training.recipe import load_recipe as load_recipe
from ghnq.training.run.loop import train as train
