-- Manifests that an index lists, at any depth, where both ends of a mirror have agreed on the index:
-- what refers to one of them concerns the mirror.
CREATE TABLE index_manifests (
    root     TEXT NOT NULL,
    manifest TEXT NOT NULL,
    PRIMARY KEY (root, manifest)
) STRICT, WITHOUT ROWID;
CREATE INDEX index_manifests_by_manifest ON index_manifests (manifest);
CREATE INDEX mirror_edges_by_digest ON mirror_edges (digest);
