-- Blobs that a manifest needs and that the cache was not given: where they were seen instead. What
-- has come to be in the cache all the same is read there, and the row does no harm.
CREATE TABLE elsewhere (
    manifest TEXT NOT NULL REFERENCES manifests (digest) ON DELETE CASCADE,
    digest   TEXT NOT NULL,
    registry TEXT NOT NULL,
    name     TEXT NOT NULL,
    PRIMARY KEY (manifest, digest, registry, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX elsewhere_by_digest ON elsewhere (digest);
