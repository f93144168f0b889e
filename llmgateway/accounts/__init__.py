"""Keys, groups and prompts, the settings of the organisation, and the audit log."""
