"""What a tag of a registry names, asked again and again over one connection."""

import http.client
import time

ACCEPT = "application/vnd.oci.image.manifest.v1+json"
REQUEST_DEADLINE_S = 30.0


class Tag:
    """One tag of one repository."""

    def __init__(self, address: str, repository: str, name: str) -> None:
        self._path = f"/v2/{repository}/manifests/{name}"
        self._connection = http.client.HTTPConnection(address, timeout=REQUEST_DEADLINE_S)

    def digest(self) -> str | None:
        """Return the digest of the manifest, or None where there is no such tag."""
        self._connection.request("HEAD", self._path, headers={"Accept": ACCEPT})
        with self._connection.getresponse() as answer:
            answer.read()
            return answer.headers["Docker-Content-Digest"] if answer.status == 200 else None

    def await_other(self, known: str | None, *, deadline_s: float) -> str:
        """Return the digest as soon as it is another one; ask every 5 ms."""
        until_s = time.monotonic() + deadline_s
        while (digest := self.digest()) is None or digest == known:
            assert time.monotonic() < until_s, f"{self._path} is {known} for {deadline_s:g} s"
            time.sleep(0.005)
        return digest

    def close(self) -> None:
        self._connection.close()
