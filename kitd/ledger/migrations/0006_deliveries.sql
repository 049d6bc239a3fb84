-- What registries told by webhook. `name` is what the sender calls a delivery, the fingerprint that
-- of source and body; both say whether it came before. A body is compressed with zlib, and NULL
-- where nobody will read it again.
CREATE TABLE deliveries (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    source      TEXT NOT NULL,
    name        TEXT,
    fingerprint BLOB NOT NULL,
    received_us INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('accepted', 'ignored', 'malformed')),
    reason      TEXT,
    changes     INTEGER NOT NULL,
    jobs        TEXT NOT NULL DEFAULT '[]',
    replays     INTEGER NOT NULL DEFAULT 0,
    headers     TEXT NOT NULL,
    body_bytes  INTEGER NOT NULL,
    body        BLOB
) STRICT;
CREATE INDEX deliveries_by_name ON deliveries (source, name, received_us) WHERE name IS NOT NULL;
CREATE INDEX deliveries_by_fingerprint ON deliveries (fingerprint, received_us)
    WHERE name IS NULL;
CREATE INDEX deliveries_by_source ON deliveries (source, state);
CREATE INDEX deliveries_by_state ON deliveries (state);
