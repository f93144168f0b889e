"""Rate limits and budgets of keys, groups and the organisation."""
