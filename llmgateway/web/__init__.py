"""The web layer. Only this package imports Flask."""
