"""Hosting: waitress in one process or several."""
