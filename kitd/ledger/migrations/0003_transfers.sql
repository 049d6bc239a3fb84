-- Uploads that a registry keeps open: where to ask how much of one has arrived. `content` is the
-- digest of the blob, or another word where that is not known yet.
CREATE TABLE uploads (
    registry          TEXT NOT NULL,
    name              TEXT NOT NULL,
    content           TEXT NOT NULL,
    location          TEXT NOT NULL,
    origin            TEXT NOT NULL,
    received          INTEGER NOT NULL,
    least_chunk_bytes INTEGER NOT NULL,
    touched_us        INTEGER NOT NULL,
    PRIMARY KEY (registry, name, content)
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_by_touch ON uploads (touched_us);

-- How registries turned out to take uploads, where that is not what is known by their names.
CREATE TABLE registry_lessons (
    registry      TEXT PRIMARY KEY,
    takes_chunks  INTEGER NOT NULL CHECK (takes_chunks IN (0, 1)),
    chunk_bytes   INTEGER NOT NULL,
    refused_bytes INTEGER,
    learned_us    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
