-- What mirrors removed lately by themselves, so that many that go one after the other are seen to be
-- many.
CREATE TABLE mirror_removals (
    source_registry TEXT NOT NULL,
    source_name     TEXT NOT NULL,
    target_registry TEXT NOT NULL,
    target_name     TEXT NOT NULL,
    removed_us      INTEGER NOT NULL
) STRICT;
CREATE INDEX mirror_removals_by_pair ON mirror_removals
    (source_registry, source_name, target_registry, target_name, removed_us);
CREATE INDEX mirror_edges_gone ON mirror_edges (gone_us) WHERE gone_us IS NOT NULL;
CREATE INDEX mirror_edges_failed ON mirror_edges (failed_us) WHERE failed_us IS NOT NULL;
