-- What is known of a source's tag and the target's tag that follows it: `digest` is what both named
-- when they were last seen equal. The other direction of a pair is another row, and as good a
-- memory.
CREATE TABLE mirror_edges (
    id              INTEGER PRIMARY KEY,
    source_registry TEXT NOT NULL,
    source_name     TEXT NOT NULL,
    source_tag      TEXT NOT NULL,
    target_registry TEXT NOT NULL,
    target_name     TEXT NOT NULL,
    target_tag      TEXT NOT NULL,
    rule            TEXT,
    digest          TEXT,
    equal_us        INTEGER NOT NULL DEFAULT 0,
    referrers_us    INTEGER NOT NULL DEFAULT 0,
    gone_us         INTEGER,
    conflict        TEXT,
    error_code      TEXT,
    error_message   TEXT,
    failed_us       INTEGER,
    UNIQUE (source_registry, source_name, source_tag, target_registry, target_name, target_tag)
) STRICT;
CREATE INDEX mirror_edges_by_target ON mirror_edges (target_registry, target_name, target_tag);
CREATE INDEX mirror_edges_by_rule ON mirror_edges (rule);

-- When each mirror of the configuration was last started by its schedule.
CREATE TABLE mirror_starts (
    rule       TEXT PRIMARY KEY,
    started_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- When manifests were made, for mirrors that go by age.
CREATE TABLE manifest_ages (
    digest     TEXT PRIMARY KEY,
    created_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
