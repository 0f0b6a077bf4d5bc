"""Published systems on a cohort of one's own: recipes, nested cross-validation, external validation, bundles with their cards."""

from .assess import Assessment
from .recipes import Recipe, fit_columns, load_recipe, recipe_names
from .run import Effort, check_recipes, train, validate
from .table import Table, read_header, read_table

__all__ = [
    "Assessment",
    "Effort",
    "Recipe",
    "Table",
    "check_recipes",
    "fit_columns",
    "load_recipe",
    "read_header",
    "read_table",
    "recipe_names",
    "train",
    "validate",
]
