"""The admin API, with one module for each kind of object. All requests need the header ``AdminKey``."""

# In the order of the documentation.
from . import legacy, keys, imports, bulk, groups, self_service, closing, users, erasure, raises  # noqa: F401, I001
from . import limits, settings, prompts, models, prices, doctor, reports, traffic, logs  # noqa: F401
from . import reconcile, statements, currency, alerts, admins, sign_in, audit, status  # noqa: F401
from .blueprint import GUARD, SIGNED_IN, blp, check_admin_key

__all__ = ["GUARD", "SIGNED_IN", "blp", "check_admin_key"]
