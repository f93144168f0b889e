"""The schema of ``gateway.sqlite``, as a list of migrations.

Each migration is a list of statements that convert version *n* of the file (``PRAGMA user_version``) to version
*n + 1*. A released migration must never be edited; append a new migration instead. Times are whole milliseconds since
1970; lists, limits and prompts are JSON.
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
        # This table has one row. The organisation's prompt is the highest version in prompts.
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
    # Daily sums, so that reports do not have to read records. A series is the usage of one model by one key. Days are
    # whole numbers like 20260131, and months like 202601.
    (
        """CREATE TABLE usage_series (
            id INTEGER PRIMARY KEY,
            key_id TEXT NOT NULL,
            user TEXT NOT NULL,
            "group" TEXT,
            model TEXT NOT NULL
        )""",
        "CREATE INDEX usage_series_key ON usage_series (key_id, model)",
        # With the month in the primary key, SQLite can add up months in the order of the table, without sorting.
        """CREATE TABLE usage_daily (
            series INTEGER NOT NULL,
            month INTEGER NOT NULL,
            day INTEGER NOT NULL,
            requests INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            total_tokens INTEGER NOT NULL,
            cached_tokens INTEGER NOT NULL,
            reasoning_tokens INTEGER NOT NULL,
            cost_usd REAL NOT NULL,
            errors INTEGER NOT NULL,
            PRIMARY KEY (series, month, day)
        ) WITHOUT ROWID""",
        """INSERT INTO usage_series (key_id, user, "group", model)
            SELECT DISTINCT key_id, user, "group", model FROM logs""",
        # CROSS JOIN fixes the order: SQLite reads the log once, and looks up the series of each record.
        """INSERT INTO usage_daily
            SELECT series.id, CAST(strftime('%Y%m', timestamp / 1000, 'unixepoch') AS INTEGER),
                CAST(strftime('%Y%m%d', timestamp / 1000, 'unixepoch') AS INTEGER) AS day,
                count(*), sum(prompt_tokens), sum(completion_tokens), sum(total_tokens), sum(cached_tokens),
                sum(reasoning_tokens), total(cost_usd), sum(outcome <> 'ok')
            FROM logs CROSS JOIN usage_series AS series
                ON series.key_id = logs.key_id AND series.model = logs.model
                AND series.user = logs.user AND series."group" IS logs."group"
            GROUP BY series.id, day""",
        # The highest accepted batch number of each source.
        "CREATE TABLE usage_sources (source TEXT NOT NULL PRIMARY KEY, number INTEGER NOT NULL)",
        # This table has one row. Records before the day kept_before have been purged.
        "CREATE TABLE usage_purged (id INTEGER PRIMARY KEY CHECK (id = 1), kept_before INTEGER NOT NULL)",
        "INSERT INTO usage_purged VALUES (1, 0)",
        "CREATE INDEX logs_user ON logs (user, timestamp)",
        "CREATE INDEX logs_outcome ON logs (outcome, timestamp)",
    ),
    # Limits, groups, prompts of groups and keys, rotation, and the audit log.
    (
        "ALTER TABLE keys ADD COLUMN limits TEXT",
        "ALTER TABLE keys ADD COLUMN prompt TEXT",
        "ALTER TABLE keys ADD COLUMN retiring_digest TEXT",
        "ALTER TABLE keys ADD COLUMN retires_at INTEGER",
        # A partial index is small, because few keys are being replaced at any time.
        "CREATE UNIQUE INDEX keys_retiring ON keys (retiring_digest) WHERE retiring_digest IS NOT NULL",
        "ALTER TABLE organisation ADD COLUMN limits TEXT",
        """CREATE TABLE groups (
            name TEXT NOT NULL PRIMARY KEY,
            created_at INTEGER NOT NULL,
            note TEXT,
            starts_at INTEGER,
            expires_at INTEGER,
            models TEXT,
            limits TEXT,
            prompt TEXT
        )""",
        # Empty for the organisation, whose prompt is the highest version with this scope.
        "ALTER TABLE prompts ADD COLUMN scope TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX prompts_scope ON prompts (scope, version)",
        'CREATE INDEX usage_series_group ON usage_series ("group")',
        """CREATE TABLE audit (
            id TEXT NOT NULL PRIMARY KEY,
            timestamp INTEGER NOT NULL,
            address TEXT,
            admin_key_id TEXT NOT NULL,
            action TEXT NOT NULL,
            target TEXT NOT NULL,
            before TEXT,
            after TEXT
        )""",
        "CREATE INDEX audit_target ON audit (target, id)",
    ),
    # Cached keys are valid until keys_version changes. Triggers change it, so that every statement does so, even one
    # that an admin enters in sqlite3.
    (
        "ALTER TABLE organisation ADD COLUMN keys_version TEXT NOT NULL DEFAULT ''",
        """CREATE TRIGGER keys_added AFTER INSERT ON keys BEGIN
            UPDATE organisation SET keys_version = lower(hex(randomblob(16)));
        END""",
        """CREATE TRIGGER keys_changed AFTER UPDATE ON keys BEGIN
            UPDATE organisation SET keys_version = lower(hex(randomblob(16)));
        END""",
        """CREATE TRIGGER keys_removed AFTER DELETE ON keys BEGIN
            UPDATE organisation SET keys_version = lower(hex(randomblob(16)));
        END""",
    ),
    # Settings of models are JSON, because they grow. In the sums, requests without a known price and tokens that Azure
    # did not count are counted apart.
    (
        "CREATE TABLE models (model TEXT NOT NULL PRIMARY KEY, settings TEXT NOT NULL)",
        """INSERT INTO models
            SELECT model,
                json_object('prices', json_object('prompt', prompt, 'cached', cached, 'completion', completion))
            FROM prices""",
        "DROP TABLE prices",
        "ALTER TABLE usage_daily ADD COLUMN unpriced_requests INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE usage_daily ADD COLUMN estimated_tokens INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE usage_daily ADD COLUMN bound_tokens INTEGER NOT NULL DEFAULT 0",
        """UPDATE usage_daily SET unpriced_requests = found.unpriced, estimated_tokens = found.estimated,
                bound_tokens = found.bound
            FROM (
                SELECT series.id AS series, CAST(strftime('%Y%m', timestamp / 1000, 'unixepoch') AS INTEGER) AS month,
                    CAST(strftime('%Y%m%d', timestamp / 1000, 'unixepoch') AS INTEGER) AS day,
                    sum(cost_usd IS NULL AND total_tokens > 0) AS unpriced,
                    sum(iif(usage_source = 'estimated', total_tokens, 0)) AS estimated,
                    sum(iif(usage_source = 'bound', total_tokens, 0)) AS bound
                FROM logs CROSS JOIN usage_series AS series
                    ON series.key_id = logs.key_id AND series.model = logs.model
                    AND series.user = logs.user AND series."group" IS logs."group"
                WHERE total_tokens > 0 AND (cost_usd IS NULL OR usage_source <> 'upstream')
                GROUP BY series.id, day
            ) AS found
            WHERE usage_daily.series = found.series AND usage_daily.month = found.month AND usage_daily.day = found.day
                AND usage_daily.day >= (SELECT kept_before FROM usage_purged)""",
        # A partial index, because Azure counts nearly every request.
        "CREATE INDEX logs_usage_source ON logs (usage_source, timestamp) WHERE usage_source <> 'upstream'",
    ),
    # Models that Azure does not know are counted under one name. Older records count as they were.
    ("ALTER TABLE logs ADD COLUMN model_known INTEGER NOT NULL DEFAULT 1",),
    # What failover, stored responses, tiers and tools leave in a record. Attempts, uses of tools and stored ids are
    # JSON; NULL for none, as in nearly all records. No index can look into a list, so stored ids have their own table.
    (
        "ALTER TABLE logs ADD COLUMN attempts TEXT",
        "ALTER TABLE logs ADD COLUMN response_id TEXT",
        "ALTER TABLE logs ADD COLUMN service_tier TEXT",
        "ALTER TABLE logs ADD COLUMN spilled_over INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE logs ADD COLUMN error_code TEXT",
        "ALTER TABLE logs ADD COLUMN tool_uses TEXT",
        "ALTER TABLE logs ADD COLUMN stored_ids TEXT",
        "ALTER TABLE logs ADD COLUMN stored_at TEXT",
        "CREATE INDEX logs_response_id ON logs (response_id) WHERE response_id IS NOT NULL",
        "CREATE TABLE stored_ids (id TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (id, record)) WITHOUT ROWID",
        "CREATE INDEX stored_ids_record ON stored_ids (record)",
        """CREATE TRIGGER logs_stored AFTER INSERT ON logs WHEN new.stored_ids IS NOT NULL BEGIN
            INSERT OR IGNORE INTO stored_ids SELECT value, new.id FROM json_each(new.stored_ids);
        END""",
        """CREATE TRIGGER logs_purged AFTER DELETE ON logs WHEN old.stored_ids IS NOT NULL BEGIN
            DELETE FROM stored_ids WHERE record = old.id;
        END""",
    ),
    # The deployment of older sums is not known, until somebody rebuilds them.
    ("ALTER TABLE usage_series ADD COLUMN deployment TEXT",),
    # What content filters found, as JSON; NULL for nothing, as in nearly all records. Of older records the severity is
    # not known.
    (
        "ALTER TABLE logs ADD COLUMN filter_severities TEXT",
        """UPDATE logs SET filter_severities =
                (SELECT json_group_array(value || ':found') FROM json_each(logs.content_filter))
            WHERE content_filter <> '[]'""",
        "CREATE INDEX logs_filters ON logs (timestamp) WHERE filter_severities IS NOT NULL",
    ),
    # Settings of the organisation whose fields only their own modules know, as JSON.
    ("CREATE TABLE documents (name TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL)",),
    # To find a request by its id or Azure's. No index can look into the JSON of attempts, so the ids that Azure gave
    # them have their own table.
    (
        "CREATE INDEX logs_upstream ON logs (upstream_request_id) WHERE upstream_request_id IS NOT NULL",
        'CREATE INDEX logs_group ON logs ("group", timestamp) WHERE "group" IS NOT NULL',
        "CREATE INDEX logs_error ON logs (error_code, timestamp) WHERE error_code IS NOT NULL",
        "CREATE TABLE attempt_ids (id TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (id, record)) WITHOUT ROWID",
        "CREATE INDEX attempt_ids_record ON attempt_ids (record)",
        """CREATE TRIGGER logs_attempted AFTER INSERT ON logs WHEN new.attempts IS NOT NULL BEGIN
            INSERT OR IGNORE INTO attempt_ids
            SELECT json_extract(value, '$.upstream_request_id'), new.id FROM json_each(new.attempts)
            WHERE json_extract(value, '$.upstream_request_id') <> coalesce(new.upstream_request_id, '');
        END""",
        """CREATE TRIGGER logs_attempts_purged AFTER DELETE ON logs WHEN old.attempts IS NOT NULL BEGIN
            DELETE FROM attempt_ids WHERE record = old.id;
        END""",
        """INSERT OR IGNORE INTO attempt_ids
            SELECT json_extract(each.value, '$.upstream_request_id'), logs.id
            FROM logs, json_each(logs.attempts) AS each
            WHERE logs.attempts IS NOT NULL
                AND json_extract(each.value, '$.upstream_request_id') <> coalesce(logs.upstream_request_id, '')""",
        """CREATE TABLE refusals (
            id TEXT NOT NULL PRIMARY KEY,
            timestamp INTEGER NOT NULL,
            status INTEGER NOT NULL,
            code TEXT,
            "limit" TEXT,
            key_id TEXT,
            user TEXT,
            "group" TEXT,
            endpoint TEXT,
            model TEXT,
            address TEXT,
            message TEXT NOT NULL,
            count INTEGER NOT NULL,
            last_at INTEGER,
            repeats TEXT
        )""",
        "CREATE INDEX refusals_timestamp ON refusals (timestamp, id)",
        "CREATE INDEX refusals_key ON refusals (key_id, timestamp) WHERE key_id IS NOT NULL",
        "CREATE INDEX refusals_user ON refusals (user, timestamp) WHERE user IS NOT NULL",
        "CREATE TABLE refusal_ids (id TEXT NOT NULL PRIMARY KEY, refusal TEXT NOT NULL) WITHOUT ROWID",
        "CREATE INDEX refusal_ids_refusal ON refusal_ids (refusal)",
        """CREATE TRIGGER refusals_purged AFTER DELETE ON refusals WHEN old.repeats IS NOT NULL BEGIN
            DELETE FROM refusal_ids WHERE refusal = old.id;
        END""",
    ),
    # Limits of people, of each member of a group, and limits that are raised for a while (JSON, like limits). The index
    # is for budgets of people, which are initialised from their sums.
    (
        "CREATE TABLE persons (user TEXT NOT NULL PRIMARY KEY, limits TEXT, raised TEXT)",
        "ALTER TABLE keys ADD COLUMN raised TEXT",
        "ALTER TABLE groups ADD COLUMN member_limits TEXT",
        "ALTER TABLE groups ADD COLUMN raised TEXT",
        "CREATE INDEX usage_series_user ON usage_series (user)",
    ),
    # Warnings for admins. The content is JSON; due_at is NULL if no delivery waits.
    (
        """CREATE TABLE alerts (
            id TEXT NOT NULL PRIMARY KEY,
            at INTEGER NOT NULL,
            user TEXT,
            due_at INTEGER,
            lease TEXT NOT NULL,
            kept_until INTEGER,
            content TEXT NOT NULL
        )""",
        "CREATE INDEX alerts_at ON alerts (at, id)",
        "CREATE INDEX alerts_user ON alerts (user) WHERE user IS NOT NULL",
        "CREATE INDEX alerts_due ON alerts (due_at) WHERE due_at IS NOT NULL",
        """CREATE TABLE outages (
            name TEXT NOT NULL PRIMARY KEY,
            event TEXT NOT NULL,
            scope TEXT NOT NULL,
            since INTEGER NOT NULL,
            until INTEGER NOT NULL,
            cleared INTEGER NOT NULL,
            over TEXT NOT NULL
        )""",
        "CREATE TABLE alert_claims (name TEXT NOT NULL PRIMARY KEY, until INTEGER NOT NULL)",
    ),
    # What is on another day in the organisation's time zone than in UTC has its sums in a table of its own. So older
    # sums need no change, the zone UTC costs nothing, and no other zone needs more than the rows that differ.
    # In the order in which reports in that time zone add up.
    (
        """CREATE TABLE usage_shifted (
            series INTEGER NOT NULL,
            local_month INTEGER NOT NULL,
            local_day INTEGER NOT NULL,
            day INTEGER NOT NULL,
            requests INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            total_tokens INTEGER NOT NULL,
            cached_tokens INTEGER NOT NULL,
            reasoning_tokens INTEGER NOT NULL,
            cost_usd REAL NOT NULL,
            errors INTEGER NOT NULL,
            unpriced_requests INTEGER NOT NULL,
            estimated_tokens INTEGER NOT NULL,
            bound_tokens INTEGER NOT NULL,
            PRIMARY KEY (series, local_month, local_day, day)
        ) WITHOUT ROWID""",
        "ALTER TABLE groups ADD COLUMN cost_centre TEXT",
    ),
    # Persons whose data was erased: their keys, and no names. See records.Erasure.
    (
        """CREATE TABLE erasures (
            pseudonym TEXT NOT NULL PRIMARY KEY,
            erased_at INTEGER NOT NULL,
            salt TEXT,
            digest TEXT,
            finished INTEGER NOT NULL
        )""",
        """CREATE TABLE erased_keys (
            key_id TEXT NOT NULL,
            pseudonym TEXT NOT NULL,
            shared INTEGER NOT NULL,
            PRIMARY KEY (key_id, pseudonym)
        ) WITHOUT ROWID""",
        "CREATE INDEX erased_keys_pseudonym ON erased_keys (pseudonym)",
    ),
    # Named admins. Processes cache them until keys_version changes, like keys.
    (
        """CREATE TABLE admins (
            id TEXT NOT NULL PRIMARY KEY,
            digest TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL UNIQUE,
            role TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            groups TEXT NOT NULL,
            note TEXT,
            active INTEGER NOT NULL,
            expires_at INTEGER,
            retiring_digest TEXT,
            retires_at INTEGER
        )""",
        "CREATE UNIQUE INDEX admins_retiring ON admins (retiring_digest) WHERE retiring_digest IS NOT NULL",
        """CREATE TRIGGER admins_added AFTER INSERT ON admins BEGIN
            UPDATE organisation SET keys_version = lower(hex(randomblob(16)));
        END""",
        """CREATE TRIGGER admins_changed AFTER UPDATE ON admins BEGIN
            UPDATE organisation SET keys_version = lower(hex(randomblob(16)));
        END""",
        """CREATE TRIGGER admins_removed AFTER DELETE ON admins BEGIN
            UPDATE organisation SET keys_version = lower(hex(randomblob(16)));
        END""",
        # NULL for the first owner, and for older entries, all of which are the first owner's.
        "ALTER TABLE audit ADD COLUMN admin_id TEXT",
        "ALTER TABLE audit ADD COLUMN admin_name TEXT",
        "ALTER TABLE audit ADD COLUMN groups TEXT",
        "CREATE INDEX audit_admin ON audit (admin_id, id)",
    ),
    # People who sign in at the organisation's identity provider (the content is JSON), and what is known of sessions.
    (
        """CREATE TABLE identities (
            id TEXT NOT NULL PRIMARY KEY,
            user TEXT,
            due_at INTEGER,
            content TEXT NOT NULL
        )""",
        "CREATE UNIQUE INDEX identities_user ON identities (user) WHERE user IS NOT NULL",
        "CREATE INDEX identities_waiting ON identities (id) WHERE user IS NULL",
        "CREATE INDEX identities_due ON identities (due_at) WHERE due_at IS NOT NULL",
        "CREATE TABLE sessions (name TEXT NOT NULL PRIMARY KEY, until INTEGER NOT NULL, content TEXT NOT NULL)",
        "CREATE INDEX sessions_until ON sessions (until)",
    ),
    # Keys that people make themselves.
    (
        "ALTER TABLE keys ADD COLUMN self_made INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE groups ADD COLUMN self_service TEXT",
    ),
    # The way of a request: times in milliseconds after its arrival, and the limits that have let it in (JSON; NULL for
    # none). The index of the status is for errors.
    (
        "ALTER TABLE logs ADD COLUMN admitted_ms REAL",
        "ALTER TABLE logs ADD COLUMN sent_ms REAL",
        "ALTER TABLE logs ADD COLUMN limits TEXT",
        "CREATE INDEX logs_status ON logs (status, timestamp) WHERE status <> 200",
        "CREATE INDEX logs_model ON logs (model, timestamp)",
    ),
    # Coarser sums, so that reports about everybody do not read those of every key: by day of everything (whole) and of
    # each group, with the spread of the requests over durations and hours (JSON; NULL in what older versions have
    # summed up); and by month of each series.
    (
        """CREATE TABLE usage_day_series (
            id INTEGER PRIMARY KEY,
            whole INTEGER NOT NULL,
            "group" TEXT,
            model TEXT NOT NULL,
            deployment TEXT
        )""",
        'CREATE INDEX usage_day_series_group ON usage_day_series (whole, "group", model, deployment)',
        """CREATE TABLE usage_days (
            series INTEGER NOT NULL,
            local_day INTEGER NOT NULL,
            day INTEGER NOT NULL,
            requests INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            total_tokens INTEGER NOT NULL,
            cached_tokens INTEGER NOT NULL,
            reasoning_tokens INTEGER NOT NULL,
            cost_usd REAL NOT NULL,
            errors INTEGER NOT NULL,
            unpriced_requests INTEGER NOT NULL,
            estimated_tokens INTEGER NOT NULL,
            bound_tokens INTEGER NOT NULL,
            spread TEXT,
            PRIMARY KEY (series, local_day, day)
        ) WITHOUT ROWID""",
        """INSERT INTO usage_day_series (whole, "group", model, deployment)
            SELECT DISTINCT 1, NULL, model, deployment FROM usage_series
            UNION ALL SELECT DISTINCT 0, "group", model, deployment FROM usage_series""",
        """INSERT INTO usage_days
            SELECT coarser.id, local_day, day,
                sum(requests), sum(prompt_tokens), sum(completion_tokens), sum(total_tokens), sum(cached_tokens),
                sum(reasoning_tokens), sum(cost_usd), sum(errors), sum(unpriced_requests), sum(estimated_tokens),
                sum(bound_tokens), NULL
            FROM (
                SELECT series, day AS local_day, day,
                requests, prompt_tokens, completion_tokens, total_tokens, cached_tokens, reasoning_tokens, cost_usd,
                errors, unpriced_requests, estimated_tokens, bound_tokens
                FROM usage_daily
                UNION ALL
                SELECT series, local_day, day,
                requests, prompt_tokens, completion_tokens, total_tokens, cached_tokens, reasoning_tokens, cost_usd,
                errors, unpriced_requests, estimated_tokens, bound_tokens
                FROM usage_shifted
            ) CROSS JOIN usage_series AS finer ON finer.id = series
            CROSS JOIN usage_day_series AS coarser ON coarser.whole = 0 AND coarser."group" IS finer."group"
                AND coarser.model = finer.model AND coarser.deployment IS finer.deployment
            GROUP BY 1, 2, 3""",
        """INSERT INTO usage_days
            SELECT coarser.id, local_day, day,
                sum(requests), sum(prompt_tokens), sum(completion_tokens), sum(total_tokens), sum(cached_tokens),
                sum(reasoning_tokens), sum(cost_usd), sum(errors), sum(unpriced_requests), sum(estimated_tokens),
                sum(bound_tokens), NULL
            FROM usage_days CROSS JOIN usage_day_series AS finer ON finer.id = series
            CROSS JOIN usage_day_series AS coarser ON coarser.whole = 1 AND coarser."group" IS NULL
                AND coarser.model = finer.model AND coarser.deployment IS finer.deployment
            GROUP BY 1, 2, 3""",
        """CREATE TABLE usage_monthly (
            month INTEGER NOT NULL,
            series INTEGER NOT NULL,
            requests INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            total_tokens INTEGER NOT NULL,
            cached_tokens INTEGER NOT NULL,
            reasoning_tokens INTEGER NOT NULL,
            cost_usd REAL NOT NULL,
            errors INTEGER NOT NULL,
            unpriced_requests INTEGER NOT NULL,
            estimated_tokens INTEGER NOT NULL,
            bound_tokens INTEGER NOT NULL,
            PRIMARY KEY (month, series)
        ) WITHOUT ROWID""",
        """INSERT INTO usage_monthly
            SELECT month, series,
                sum(requests), sum(prompt_tokens), sum(completion_tokens), sum(total_tokens), sum(cached_tokens),
                sum(reasoning_tokens), sum(cost_usd), sum(errors), sum(unpriced_requests), sum(estimated_tokens),
                sum(bound_tokens)
            FROM (
                SELECT series, month,
                requests, prompt_tokens, completion_tokens, total_tokens, cached_tokens, reasoning_tokens, cost_usd,
                errors, unpriced_requests, estimated_tokens, bound_tokens
                FROM usage_daily
                UNION ALL
                SELECT series, local_month,
                requests, prompt_tokens, completion_tokens, total_tokens, cached_tokens, reasoning_tokens, cost_usd,
                errors, unpriced_requests, estimated_tokens, bound_tokens
                FROM usage_shifted
            ) GROUP BY 1, 2""",
    ),
)
