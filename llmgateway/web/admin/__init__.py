"""What admins call, with the header ``AdminKey``: one module for each thing there is to look after."""

# In the order in which the documentation shows them.
from . import legacy, keys, imports, groups, limits, prompts, models, reports, audit, status  # noqa: F401, I001
from .blueprint import GUARD, blp, check_admin_key

__all__ = ["GUARD", "blp", "check_admin_key"]
