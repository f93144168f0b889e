"""Schemas that check and document the bodies of requests and responses."""
