"""MongoDB: keys, what admins have set, the usage log and the audit log."""
