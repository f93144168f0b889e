"""The shape of the file, as the list of steps that lead to it.

Each step is the statements that turn version *n* of the file (``PRAGMA user_version``) into
version *n + 1*. A step that was ever released is never edited; a change is a new step at the end.
Times are whole milliseconds since 1970, lists are JSON.
"""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE keys (
            id TEXT NOT NULL PRIMARY KEY,
            digest TEXT NOT NULL UNIQUE,
            user TEXT NOT NULL,
            name TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            "group" TEXT,
            email TEXT,
            note TEXT,
            active INTEGER NOT NULL,
            starts_at INTEGER,
            expires_at INTEGER,
            models TEXT
        )""",
        "CREATE INDEX keys_user ON keys (user, id)",
        'CREATE INDEX keys_group ON keys ("group", id)',
        # One row. The prompt in force is the highest version in prompts.
        """CREATE TABLE organisation (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            generation TEXT NOT NULL,
            credential BLOB
        )""",
        "INSERT INTO organisation (id, generation) VALUES (1, lower(hex(randomblob(16))))",
        """CREATE TABLE prompts (
            version INTEGER PRIMARY KEY,
            text TEXT NOT NULL,
            set_at INTEGER NOT NULL
        )""",
        """CREATE TABLE logs (
            id TEXT NOT NULL PRIMARY KEY,
            timestamp INTEGER NOT NULL,
            key_id TEXT NOT NULL,
            user TEXT NOT NULL,
            "group" TEXT,
            model TEXT NOT NULL,
            deployment TEXT NOT NULL,
            endpoint TEXT NOT NULL,
            stream INTEGER NOT NULL,
            status INTEGER,
            outcome TEXT NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            total_tokens INTEGER NOT NULL,
            cached_tokens INTEGER NOT NULL,
            reasoning_tokens INTEGER NOT NULL,
            usage_source TEXT NOT NULL,
            cost_usd REAL,
            prompt_version INTEGER NOT NULL,
            content_filter TEXT NOT NULL,
            ttft_ms REAL,
            duration_ms REAL NOT NULL,
            upstream_request_id TEXT,
            region TEXT,
            client_address TEXT
        )""",
        "CREATE INDEX logs_timestamp ON logs (timestamp)",
        "CREATE INDEX logs_key ON logs (key_id, timestamp)",
    ),
    # US dollars per million tokens.
    ("CREATE TABLE prices (model TEXT NOT NULL PRIMARY KEY, prompt REAL, cached REAL, completion REAL)",),
)
