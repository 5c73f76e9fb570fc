"""Recipes and the loop that follows them."""

from ghnq.training.run.interrupt import Interrupted as Interrupted
from ghnq.training.run.loop import train as train
from ghnq.training.run.recipe import Recipe as Recipe
from ghnq.training.run.recipe import load_recipe as load_recipe
