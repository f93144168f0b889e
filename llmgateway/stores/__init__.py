"""Where keys, settings and usage live: embedded SQLite, or MongoDB with Redis in front."""
