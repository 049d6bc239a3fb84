-- What kitd with schema 1 had written after a few days: jobs in every state, a key, kits, tags.
INSERT INTO meta VALUES ('instance', '0123456789abcdef0123456789abcdef');
INSERT INTO epochs VALUES (1, 100, '0.1.0', 1700000000000000, 1700000300000000);
INSERT INTO epochs VALUES (2, 200, '0.1.0', 1700000400000000, NULL);

INSERT INTO jobs (id, kind, lane, key, lock, state, args, project, reference, priority, attempt,
                  max_attempts, run_at_us, created_us, started_us, finished_us, epoch, claim, result,
                  error_code, error_message, error_hint, followed_by)
VALUES
    (1, 'pack', 'pack', 'pack:p', 'pack:p', 'succeeded', X'7B7D', 'p', 'r.example/p', 0, 1, 8,
     1700000000000000, 1700000000000000, 1700000001000000, 1700000002000000, NULL, 1, X'7B7D',
     NULL, NULL, NULL, '[2]'),
    (2, 'push', 'push', 'push:p', 'r.example/p', 'failed', X'7B7D', 'p', 'r.example/p:v1', 0, 8, 8,
     1700000003000000, 1700000002000000, 1700000004000000, 1700000005000000, NULL, 8, NULL,
     'unauthorized', 'r.example: no', 'log in', '[]'),
    (3, 'push', 'push', 'push:q', 'r.example/q', 'scheduled', X'7B7D', NULL, 'r.example/q:v1', 10, 2,
     8, 1700000900000000, 1700000006000000, 1700000007000000, NULL, NULL, 2, NULL,
     'unavailable', 'r.example: away', NULL, '[]'),
    (4, 'pull', 'pull', 'pull:q', 'pull:q', 'running', X'7B7D', NULL, 'r.example/q:v2', 10, 1, 8,
     1700000008000000, 1700000008000000, 1700000409000000, NULL, 2, 1, NULL, NULL, NULL, NULL, '[]'),
    (6, 'pack', 'pack', 'pack:p', 'pack:p', 'ready', X'7B226E223A317D', 'p', 'r.example/p', 0, 0, 8,
     1700000410000000, 1700000410000000, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, '[]');
INSERT INTO jobs (id, kind, lane, key, lock, state, args, project, priority, max_attempts, run_at_us,
                  created_us, finished_us, superseded_by)
VALUES (5, 'pack', 'pack', 'pack:p', 'pack:p', 'superseded', X'7B7D', 'p', 0, 8, 1700000409000000,
        1700000409000000, 1700000410000000, 6);

INSERT INTO idempotency VALUES (1000, 'once', 'abc', 4, 1700000008000000);
INSERT INTO events VALUES (1, 1700000000000000, 'daemon.started', 'daemon', NULL, NULL, '{}');
INSERT INTO events VALUES (2, 1700000000000000, 'job.created', 'job:1', 1, 'p', '{"kind": "pack"}');
INSERT INTO events VALUES (3, 1700000001000000, 'job.started', 'job:1', 1, 'p', '{"attempt": 1}');

INSERT INTO manifests VALUES ('sha256:aa', 'application/vnd.oci.image.manifest.v1+json', 500, NULL,
                              '{}', NULL, 4096, 'm', 'ada', 'key', 1700000002000000);
INSERT INTO manifest_children VALUES ('sha256:aa', 0, 'sha256:bb', 4096, 'application/x-tar');
INSERT INTO repository_manifests VALUES ('r.example', 'p', 'sha256:aa');
INSERT INTO tags VALUES ('r.example', 'p', 'v1', 'sha256:aa', 1700000002000000);
INSERT INTO projects VALUES ('p', 'added', '{}', 1700000000000000, 0, 'f', 'key', 'sha256:aa',
                             1700000002000000, 1);
INSERT INTO packed VALUES ('layer', X'00', 1700000002000000);
