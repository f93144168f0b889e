"""Warnings for admins: what happened, where it is announced, and how it gets there."""
