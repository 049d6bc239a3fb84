"""What must be true of a state directory and of registries, whatever was done to kitd.

Reads with nothing of kitd: SQLite, hashlib and HTTP. Each function returns what is wrong, a line
each. `python aftermath.py STATE_DIR [REGISTRY...]` prints it and fails if there is anything.
"""

import hashlib
import http.client
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

LEDGER = "ledger.sqlite3"
MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"


@contextmanager
def opened(state: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy of the ledger as it lies there: recovering the file itself is kitd's to do."""
    with tempfile.TemporaryDirectory() as place:
        for name in (LEDGER, f"{LEDGER}-wal"):
            if (state / name).exists():
                shutil.copyfile(state / name, Path(place, name))
        with closing(sqlite3.connect(Path(place, LEDGER))) as connection:
            yield connection


def last_events(state: Path, project: str) -> list[tuple[int, int, str, str, str]]:
    """Return what last happened to a project: for the person who looks for the reason."""
    with opened(state) as ledger:
        rows = ledger.execute(
            "SELECT seq, at_us, type, subject, data FROM events"
            " WHERE project = ? ORDER BY seq DESC LIMIT 25",
            (project,),
        )
        return list(rows)[::-1]


def ledger_faults(connection: sqlite3.Connection) -> list[str]:
    """Say what is wrong with a ledger, whoever was killed when."""
    wrong = [f"integrity: {line}" for (line,) in connection.execute("PRAGMA integrity_check")]
    wrong = [line for line in wrong if line != "integrity: ok"]
    wrong += [f"foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
    return wrong


def rest_faults(connection: sqlite3.Connection) -> list[str]:
    """Say what is wrong with a ledger after a stop in good order."""
    # One that was claimed and had not begun is put back by the next start.
    running = connection.execute(
        "SELECT id FROM jobs WHERE state = 'running' AND epoch < (SELECT max(epoch) FROM epochs)"
    )
    wrong = [f"job {job} runs in no daemon" for (job,) in running]
    for job, state, ends in connection.execute(
        "SELECT j.id, j.state, count(e.seq) FROM jobs AS j LEFT JOIN events AS e"
        " ON e.job = j.id AND e.type = 'job.' || j.state"
        " WHERE j.state IN ('succeeded', 'cancelled', 'superseded') GROUP BY j.id HAVING"
        " count(e.seq) <> 1"
    ):
        wrong.append(f"job {job} has {ends} events of its end, {state}")
    return wrong


def cache_faults(connection: sqlite3.Connection, cache: Path) -> list[str]:
    """Say what is wrong between the catalogue and the blobs."""
    wrong, found = [], {}
    for blob in (cache / "blobs" / "sha256").iterdir():
        content = blob.read_bytes()
        found[f"sha256:{blob.name}"] = len(content)
        if hashlib.sha256(content).hexdigest() != blob.name:
            wrong.append(f"the blob {blob.name} has other content, {len(content)} bytes")
    for manifest, digest, size in connection.execute(
        "SELECT digest, digest, size FROM manifests"
        " UNION ALL SELECT manifest, digest, size FROM manifest_children"
    ):
        if found.get(digest) not in (size, None) or (
            digest not in found and not is_elsewhere(connection, manifest, digest, size)
        ):
            wrong.append(f"{manifest} needs {digest} of {size} bytes, found {found.get(digest)}")
    for name, tag, digest in connection.execute("SELECT name, tag, digest FROM tags"):
        if digest not in found:
            wrong.append(f"{name}:{tag} names {digest}, which is not there")
    index = json.loads((cache / "index.json").read_bytes())
    for entry in index["manifests"]:
        if found.get(entry["digest"]) != entry["size"]:
            wrong.append(f"index.json names {entry['digest']}, which is not there")
    return wrong


def is_elsewhere(connection: sqlite3.Connection, manifest: str, digest: str, size: int) -> bool:
    """Whether a blob that is not here is where the catalogue says that it is."""
    for registry, name in connection.execute(
        "SELECT registry, name FROM elsewhere WHERE manifest = ? AND digest = ?", (manifest, digest)
    ):
        with closing(http.client.HTTPConnection(registry, timeout=20)) as connected:
            connected.request("HEAD", f"/v2/{name}/blobs/{digest}")
            answer = connected.getresponse()
            if answer.status == 200 and answer.headers["Content-Length"] == str(size):
                return True
    return False


def leftovers(cache: Path) -> list[str]:
    """Say what a start should have swept."""
    return [f"left over: {path.name}" for path in (cache / "ingest").iterdir()]


def registry_faults(host: str, repositories: list[str] | None = None) -> list[str]:
    """Say which tags of a registry are not complete."""
    wrong = []
    with closing(http.client.HTTPConnection(host, timeout=20)) as connection:

        def ask(method: str, path: str) -> tuple[int, bytes]:
            connection.request(method, path, headers={"Accept": MANIFESTS})
            with connection.getresponse() as response:
                return response.status, response.read()

        if repositories is None:
            repositories = json.loads(ask("GET", "/v2/_catalog?n=10000")[1])["repositories"]
        for repository in repositories:
            status, body = ask("GET", f"/v2/{repository}/tags/list")
            whole: set[str] = set()
            for tag in (json.loads(body)["tags"] or []) if status == 200 else []:
                status, body = ask("GET", f"/v2/{repository}/manifests/{tag}")
                if status != 200:
                    wrong.append(f"{host}/{repository}:{tag} cannot be read: {status}")
                    continue
                manifest = json.loads(body)
                for child in (manifest["config"], *manifest["layers"]):
                    if child["digest"] in whole:
                        continue
                    status, _ = ask("HEAD", f"/v2/{repository}/blobs/{child['digest']}")
                    whole.add(child["digest"])
                    if status != 200:
                        wrong.append(f"{host}/{repository}:{tag} misses {child['digest']}")
    return wrong


def main(state: Path, registries: list[str]) -> int:
    with opened(state) as connection:
        wrong = ledger_faults(connection) + rest_faults(connection)
        wrong += cache_faults(connection, state / "cache")
    wrong += leftovers(state / "cache")
    for host in registries:
        wrong += registry_faults(host)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
