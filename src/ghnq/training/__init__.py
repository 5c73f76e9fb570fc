"""Recipes and the loop that follows them."""

from ghnq.training.interrupt import Interrupted as Interrupted
from ghnq.training.loop import train as train
from ghnq.training.recipe import Recipe as Recipe
from ghnq.training.recipe import load_recipe as load_recipe
