-- Times are integer microseconds since the epoch, UTC. JSON columns are UTF-8 text.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row for each life of the daemon: an attempt of another epoch is dead by definition.
CREATE TABLE epochs (
    epoch      INTEGER PRIMARY KEY AUTOINCREMENT,
    pid        INTEGER NOT NULL,
    version    TEXT NOT NULL,
    started_us INTEGER NOT NULL,
    stopped_us INTEGER
) STRICT;

CREATE TABLE jobs (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    kind             TEXT NOT NULL,
    lane             TEXT NOT NULL,
    key              TEXT NOT NULL,
    lock             TEXT NOT NULL,
    state            TEXT NOT NULL CHECK (state IN ('scheduled', 'ready', 'running', 'succeeded',
                                                    'failed', 'cancelled', 'superseded')),
    args             BLOB NOT NULL,
    project          TEXT,
    reference        TEXT,
    priority         INTEGER NOT NULL,
    attempt          INTEGER NOT NULL DEFAULT 0,
    max_attempts     INTEGER NOT NULL,
    run_at_us        INTEGER NOT NULL,
    created_us       INTEGER NOT NULL,
    started_us       INTEGER,
    finished_us      INTEGER,
    epoch            INTEGER,
    claim            INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    result           BLOB,
    error_code       TEXT,
    error_message    TEXT,
    error_hint       TEXT,
    superseded_by    INTEGER REFERENCES jobs (id),
    followed_by      TEXT NOT NULL DEFAULT '[]',
    CHECK ((finished_us IS NOT NULL)
           = (state IN ('succeeded', 'failed', 'cancelled', 'superseded'))),
    CHECK ((epoch IS NOT NULL) = (state = 'running')),
    CHECK (state <> 'failed' OR error_code IS NOT NULL)
) STRICT;

-- At most one waiting and one running: the two locks of the queue, enforced by the file.
CREATE UNIQUE INDEX jobs_waiting ON jobs (key) WHERE state IN ('scheduled', 'ready');
CREATE UNIQUE INDEX jobs_running ON jobs (lock) WHERE state = 'running';
CREATE INDEX jobs_ready ON jobs (lane, priority DESC, id) WHERE state = 'ready';
CREATE INDEX jobs_scheduled ON jobs (run_at_us) WHERE state = 'scheduled';
CREATE INDEX jobs_by_project ON jobs (project, id) WHERE project IS NOT NULL;
-- What status counts, without a look at the jobs that ended well: they only ever become more.
CREATE INDEX jobs_counted ON jobs (state)
    WHERE state IN ('ready', 'running', 'scheduled', 'failed');

CREATE TABLE idempotency (
    uid        INTEGER NOT NULL,
    key        TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    job        INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    created_us INTEGER NOT NULL,
    PRIMARY KEY (uid, key)
) STRICT, WITHOUT ROWID;

-- What happened, in order. Written in the transaction of the change that it tells of.
CREATE TABLE events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us   INTEGER NOT NULL,
    type    TEXT NOT NULL,
    subject TEXT NOT NULL,
    job     INTEGER,
    project TEXT,
    data    TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_job ON events (job, seq) WHERE job IS NOT NULL;
CREATE INDEX events_by_project ON events (project, seq) WHERE project IS NOT NULL;

-- Manifests that are complete: the cache holds them and everything below them.
CREATE TABLE manifests (
    digest        TEXT PRIMARY KEY,
    media_type    TEXT NOT NULL,
    size          INTEGER NOT NULL,
    artifact_type TEXT,
    annotations   TEXT NOT NULL,
    subject       TEXT,
    layer_bytes   INTEGER NOT NULL,
    model_name    TEXT NOT NULL DEFAULT '',
    author        TEXT NOT NULL DEFAULT '',
    content_key   TEXT,
    recorded_us   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX manifests_by_subject ON manifests (subject) WHERE subject IS NOT NULL;
CREATE INDEX manifests_by_content ON manifests (content_key) WHERE content_key IS NOT NULL;

CREATE TABLE manifest_children (
    manifest   TEXT NOT NULL REFERENCES manifests (digest) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    digest     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    PRIMARY KEY (manifest, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_children_by_digest ON manifest_children (digest);

CREATE TABLE repository_manifests (
    registry TEXT NOT NULL,
    name     TEXT NOT NULL,
    digest   TEXT NOT NULL REFERENCES manifests (digest) ON DELETE CASCADE,
    PRIMARY KEY (registry, name, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX repository_manifests_by_digest ON repository_manifests (digest);

CREATE TABLE tags (
    registry TEXT NOT NULL,
    name     TEXT NOT NULL,
    tag      TEXT NOT NULL,
    digest   TEXT NOT NULL,
    moved_us INTEGER NOT NULL,
    PRIMARY KEY (registry, name, tag),
    FOREIGN KEY (registry, name, digest)
        REFERENCES repository_manifests (registry, name, digest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_manifest ON tags (registry, name, digest);

CREATE TABLE projects (
    name        TEXT PRIMARY KEY,
    source      TEXT NOT NULL CHECK (source IN ('config', 'added')),
    definition  TEXT NOT NULL,
    defined_us  INTEGER NOT NULL,
    held        INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1)),
    fingerprint TEXT,
    content_key TEXT,
    digest      TEXT,
    packed_us   INTEGER,
    packed_by   INTEGER
) STRICT, WITHOUT ROWID;

-- What was packed before, by all that it was made from: layers, and the last pack of a project.
CREATE TABLE packed (
    key      TEXT PRIMARY KEY,
    value    BLOB NOT NULL,
    noted_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
