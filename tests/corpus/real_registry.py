"""Bringing an artifact to a registry that looks at what it is sent, by plain requests."""

from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlencode, urlsplit

from corpus.artifact import Artifact, digest_of


def _ask(
    host: str, method: str, path: str, body: bytes = b"", media_type: str = ""
) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(host, timeout=20)
    try:
        connection.request(method, path, body, {"Content-Type": media_type} if media_type else {})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def offer(host: str, repository: str, artifact: Artifact) -> list[int]:
    """Send the blobs, then the manifests, the last with the tag `v1`; return the statuses.

    What is refused is not sent again, and the rest is sent all the same.
    """
    statuses = []
    base = f"/v2/{repository}"
    for digest, content in artifact.blobs.items():
        begun, _ = _ask(host, "POST", f"{base}/blobs/uploads/")
        statuses.append(begun.status)
        if begun.status == 202:
            place = urlsplit(begun.headers["Location"])
            query = "&".join(filter(None, (place.query, urlencode({"digest": digest}))))
            ended, _ = _ask(
                host, "PUT", f"{place.path}?{query}", content, "application/octet-stream"
            )
            statuses.append(ended.status)
    for child in artifact.children:
        path = f"{base}/manifests/{digest_of(child.content)}"
        answer, _ = _ask(host, "PUT", path, child.content, child.media_type)
        statuses.append(answer.status)
    root = artifact.root
    answer, _ = _ask(host, "PUT", f"{base}/manifests/v1", root.content, root.media_type)
    return [*statuses, answer.status]
