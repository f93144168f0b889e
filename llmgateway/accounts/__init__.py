"""Whose request it is: keys, groups, prompts, and what admins have set for everybody."""
