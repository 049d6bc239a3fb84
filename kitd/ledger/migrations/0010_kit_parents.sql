-- The kit that a kit builds on, as its Kitfile names it: by tag or by digest, in any repository,
-- whether the cache has it or not.
CREATE TABLE kit_parents (
    manifest   TEXT PRIMARY KEY REFERENCES manifests (digest) ON DELETE CASCADE,
    registry   TEXT NOT NULL,
    name       TEXT NOT NULL,
    identifier TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX kit_parents_by_name ON kit_parents (registry, name, identifier);
