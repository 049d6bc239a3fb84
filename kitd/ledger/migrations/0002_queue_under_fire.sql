-- Whose turn it is. Jobs of an owner wait behind each other and not behind those of all others:
-- start-time fair queueing, with the turns counted in jobs.
ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
-- Deaths of kitd or of its worker while the job ran, since its last orderly end.
ALTER TABLE jobs ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
-- The user who asked for it; NULL where kitd did.
ALTER TABLE jobs ADD COLUMN asked_by INTEGER;
-- The manifest that has to stay in the cache until the job has ended.
ALTER TABLE jobs ADD COLUMN needs TEXT;

UPDATE jobs SET owner = CASE WHEN project IS NULL THEN 'kitd' ELSE 'project:' || project END
    WHERE state IN ('scheduled', 'ready', 'running');
-- Those that wait, and those that may be asked to run again.
UPDATE jobs SET needs = json_extract(CAST(args AS TEXT), '$.digest')
    WHERE kind = 'push' AND state NOT IN ('succeeded', 'superseded');

-- Both say which job is the next, and all that forbids to claim it: a thousand jobs that wait for
-- one lock are passed over without a look at their rows.
DROP INDEX jobs_ready;
CREATE INDEX jobs_ready ON jobs (lane, priority DESC, turn, id, lock, crashes, state)
    WHERE state = 'ready';
CREATE INDEX jobs_least_urgent ON jobs (lane, priority, turn, id, lock, crashes, state)
    WHERE state = 'ready';
CREATE INDEX jobs_poison ON jobs (key) WHERE state = 'failed' AND error_code = 'poison';
DROP INDEX jobs_counted;
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_kind ON jobs (kind);
CREATE INDEX jobs_needs ON jobs (needs)
    WHERE needs IS NOT NULL AND state IN ('scheduled', 'ready', 'running');
CREATE INDEX jobs_finished ON jobs (state, finished_us) WHERE finished_us IS NOT NULL;
-- Without it SQLite would look through all jobs for each one that is deleted.
CREATE INDEX jobs_superseded_by ON jobs (superseded_by) WHERE superseded_by IS NOT NULL;

-- The last turn that was given to an owner, and the turn of what was claimed last. Each priority
-- counts for itself: where one is served more often, its turns run ahead.
CREATE TABLE turns (
    lane     TEXT NOT NULL,
    priority INTEGER NOT NULL,
    owner    TEXT NOT NULL,
    turn     INTEGER NOT NULL,
    PRIMARY KEY (lane, priority, owner)
) STRICT, WITHOUT ROWID;
CREATE TABLE lanes (
    lane     TEXT NOT NULL,
    priority INTEGER NOT NULL,
    turn     INTEGER NOT NULL,
    PRIMARY KEY (lane, priority)
) STRICT, WITHOUT ROWID;

-- A call that made no job keeps its answer instead.
CREATE TABLE answers (
    uid         INTEGER NOT NULL,
    key         TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    job         INTEGER REFERENCES jobs (id) ON DELETE CASCADE,
    result      BLOB,
    created_us  INTEGER NOT NULL,
    PRIMARY KEY (uid, key),
    CHECK ((job IS NULL) <> (result IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO answers (uid, key, fingerprint, job, created_us)
    SELECT uid, key, fingerprint, job, created_us FROM idempotency;
DROP TABLE idempotency;
ALTER TABLE answers RENAME TO idempotency;
CREATE INDEX idempotency_by_job ON idempotency (job) WHERE job IS NOT NULL;
CREATE INDEX idempotency_by_age ON idempotency (created_us);

-- What a collection of the cache goes by.
ALTER TABLE manifests ADD COLUMN used_us INTEGER NOT NULL DEFAULT 0;
UPDATE manifests SET used_us = recorded_us;
CREATE INDEX manifests_by_use ON manifests (used_us);
CREATE TABLE pins (
    digest    TEXT PRIMARY KEY REFERENCES manifests (digest) ON DELETE CASCADE,
    reference TEXT NOT NULL,
    pinned_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Where else a manifest and all below it is: a push that ended well and a pull are proof.
CREATE TABLE locations (
    digest       TEXT NOT NULL REFERENCES manifests (digest) ON DELETE CASCADE,
    registry     TEXT NOT NULL,
    name         TEXT NOT NULL,
    confirmed_us INTEGER NOT NULL,
    PRIMARY KEY (digest, registry, name)
) STRICT, WITHOUT ROWID;
