BEGIN TRANSACTION;
CREATE TABLE audit (
            id TEXT NOT NULL PRIMARY KEY,
            timestamp INTEGER NOT NULL,
            address TEXT,
            admin_key_id TEXT NOT NULL,
            action TEXT NOT NULL,
            target TEXT NOT NULL,
            before TEXT,
            after TEXT
        );
CREATE TABLE documents (name TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE groups (
            name TEXT NOT NULL PRIMARY KEY,
            created_at INTEGER NOT NULL,
            note TEXT,
            starts_at INTEGER,
            expires_at INTEGER,
            models TEXT,
            limits TEXT,
            prompt TEXT
        );
INSERT INTO "groups" VALUES('physics',1792877400000,'Tuesdays',NULL,NULL,NULL,'{"requests_per_minute": null, "tokens_per_minute": null, "parallel_requests": null, "budget": {"amount": 5, "unit": "usd", "period": "month"}}',NULL);
CREATE TABLE keys (
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
        , limits TEXT, prompt TEXT, retiring_digest TEXT, retires_at INTEGER);
CREATE TABLE logs (
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
        , model_known INTEGER NOT NULL DEFAULT 1, attempts TEXT, response_id TEXT, service_tier TEXT, spilled_over INTEGER NOT NULL DEFAULT 0, error_code TEXT, tool_uses TEXT, stored_ids TEXT, stored_at TEXT, filter_severities TEXT);
INSERT INTO "logs" VALUES('old_0029',1792981800000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0028',1792978200000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0027',1792974600000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0026',1792971000000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0025',1792967400000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0024',1792963800000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0023',1792960200000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0022',1792956600000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0021',1792953000000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0020',1792949400000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0019',1792945800000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0018',1792942200000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0017',1792938600000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0016',1792935000000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0015',1792931400000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0014',1792927800000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0013',1792924200000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0012',1792920600000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0011',1792917000000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0010',1792913400000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0009',1792909800000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0008',1792906200000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0007',1792902600000,'key_0002','bob',NULL,'gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',NULL,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0006',1792899000000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0005',1792895400000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0004',1792891800000,'key_0001','ada','physics','gpt-4o','gpt-4o-fr','/v1/chat/completions',0,200,'ok',20,5,25,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,'[{"deployment": "sweden", "status": null, "upstream_request_id": null, "prompt_tokens": 10, "completion_tokens": 0, "cost_usd": 0.1, "error_code": "upstream_timeout"}, {"deployment": "france", "status": 200, "upstream_request_id": null, "prompt_tokens": 10, "completion_tokens": 5, "cost_usd": 0.15, "error_code": null}]',NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0003',1792888200000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0002',1792884600000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0001',1792881000000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "logs" VALUES('old_0000',1792877400000,'key_0001','ada','physics','gpt-4o','gpt-4o-eu','/v1/chat/completions',0,200,'ok',10,5,15,0,0,'upstream',0.25,0,'[]',NULL,12.5,NULL,NULL,NULL,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE models (model TEXT NOT NULL PRIMARY KEY, settings TEXT NOT NULL);
CREATE TABLE organisation (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            generation TEXT NOT NULL,
            credential BLOB
        , limits TEXT, keys_version TEXT NOT NULL DEFAULT '');
INSERT INTO "organisation" VALUES(1,'3119711b18aa9c8fca86f7349f606809',NULL,NULL,'');
CREATE TABLE prompts (
            version INTEGER PRIMARY KEY,
            text TEXT NOT NULL,
            set_at INTEGER NOT NULL
        , scope TEXT NOT NULL DEFAULT '');
CREATE TABLE stored_ids (id TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (id, record)) WITHOUT ROWID;
CREATE TABLE usage_daily (
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
            errors INTEGER NOT NULL, unpriced_requests INTEGER NOT NULL DEFAULT 0, estimated_tokens INTEGER NOT NULL DEFAULT 0, bound_tokens INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (series, month, day)
        ) WITHOUT ROWID;
INSERT INTO "usage_daily" VALUES(1,202610,20261024,3,30,15,45,0,0,0.75,0,0,0,0);
INSERT INTO "usage_daily" VALUES(1,202610,20261025,22,220,110,330,0,0,5.5,0,0,0,0);
INSERT INTO "usage_daily" VALUES(1,202610,20261026,3,30,15,45,0,0,0.75,0,0,0,0);
INSERT INTO "usage_daily" VALUES(2,202610,20261025,1,10,5,15,0,0,0.0,0,1,0,0);
INSERT INTO "usage_daily" VALUES(3,202610,20261025,1,20,5,25,0,0,0.25,0,0,0,0);
CREATE TABLE usage_purged (id INTEGER PRIMARY KEY CHECK (id = 1), kept_before INTEGER NOT NULL);
INSERT INTO "usage_purged" VALUES(1,0);
CREATE TABLE usage_series (
            id INTEGER PRIMARY KEY,
            key_id TEXT NOT NULL,
            user TEXT NOT NULL,
            "group" TEXT,
            model TEXT NOT NULL
        , deployment TEXT);
INSERT INTO "usage_series" VALUES(1,'key_0001','ada','physics','gpt-4o','gpt-4o-eu');
INSERT INTO "usage_series" VALUES(2,'key_0002','bob',NULL,'gpt-4o','gpt-4o-eu');
INSERT INTO "usage_series" VALUES(3,'key_0001','ada','physics','gpt-4o','gpt-4o-fr');
CREATE TABLE usage_sources (source TEXT NOT NULL PRIMARY KEY, number INTEGER NOT NULL);
INSERT INTO "usage_sources" VALUES('old',1);
CREATE INDEX keys_user ON keys (user, id);
CREATE INDEX keys_group ON keys ("group", id);
CREATE INDEX logs_timestamp ON logs (timestamp);
CREATE INDEX logs_key ON logs (key_id, timestamp);
CREATE INDEX usage_series_key ON usage_series (key_id, model);
CREATE INDEX logs_user ON logs (user, timestamp);
CREATE INDEX logs_outcome ON logs (outcome, timestamp);
CREATE UNIQUE INDEX keys_retiring ON keys (retiring_digest) WHERE retiring_digest IS NOT NULL;
CREATE INDEX prompts_scope ON prompts (scope, version);
CREATE INDEX usage_series_group ON usage_series ("group");
CREATE INDEX audit_target ON audit (target, id);
CREATE TRIGGER keys_added AFTER INSERT ON keys BEGIN
            UPDATE organisation SET keys_version = lower(hex(randomblob(16)));
        END;
CREATE TRIGGER keys_changed AFTER UPDATE ON keys BEGIN
            UPDATE organisation SET keys_version = lower(hex(randomblob(16)));
        END;
CREATE TRIGGER keys_removed AFTER DELETE ON keys BEGIN
            UPDATE organisation SET keys_version = lower(hex(randomblob(16)));
        END;
CREATE INDEX logs_usage_source ON logs (usage_source, timestamp) WHERE usage_source <> 'upstream';
CREATE INDEX logs_response_id ON logs (response_id) WHERE response_id IS NOT NULL;
CREATE INDEX stored_ids_record ON stored_ids (record);
CREATE TRIGGER logs_stored AFTER INSERT ON logs WHEN new.stored_ids IS NOT NULL BEGIN
            INSERT OR IGNORE INTO stored_ids SELECT value, new.id FROM json_each(new.stored_ids);
        END;
CREATE TRIGGER logs_purged AFTER DELETE ON logs WHEN old.stored_ids IS NOT NULL BEGIN
            DELETE FROM stored_ids WHERE record = old.id;
        END;
CREATE INDEX logs_filters ON logs (timestamp) WHERE filter_severities IS NOT NULL;
COMMIT;
PRAGMA user_version = 11;
