-- Whether it was looked up what a manifest builds on, if it is a kit. Of those that were here before
-- kitd noted that, nobody knows: a look at their configs, after the start, finds out.
ALTER TABLE manifests ADD COLUMN parent_noted INTEGER NOT NULL DEFAULT 0
    CHECK (parent_noted IN (0, 1));
CREATE INDEX manifests_parent_unknown ON manifests (digest) WHERE parent_noted = 0;
