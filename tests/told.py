"""A sender's format for tests: it says what it is told to say, and whoever signs is authentic."""

import hashlib
import hmac
import json

from kitd.queue.job import JobRequest, Lane
from kitd.webhooks.delivery import Change, Changes, Handshake, Irrelevant
from kitd.webhooks.format import MalformedDeliveryError

SECRET = b"correct horse battery"
REGISTRY = "registry.example.com"


class Told:
    """Reads `{"repository", "tags"}`; its other words make it say something else."""

    name = "told"
    max_bytes = 300_000

    def __init__(self):
        self.knows_new = False
        """Whether it understands `new`, which a later version may."""

    def is_authentic(self, delivery, secret):
        if delivery.path_secret is not None:
            return hmac.compare_digest(
                delivery.path_secret.encode(errors="surrogateescape"), secret
            )
        shown = delivery.headers.get("x-signature", "").encode(errors="surrogateescape")
        expected = hmac.digest(secret, delivery.body, "sha256").hex()
        return hmac.compare_digest(shown, expected.encode())

    def delivery_id(self, delivery):
        return delivery.headers.get("x-name")

    def read(self, delivery):
        if delivery.method == "OPTIONS":
            origin = delivery.headers.get("webhook-request-origin")
            if origin is None:
                raise MalformedDeliveryError("no origin")
            return Handshake({"WebHook-Allowed-Origin": origin})
        try:
            said = json.loads(delivery.body)
        except ValueError as error:
            raise MalformedDeliveryError("it is not JSON") from error
        if "defect" in said:
            raise ZeroDivisionError("a defect of the format")
        if "code" in said:
            return Handshake({"Content-Type": "text/plain"}, said["code"].encode())
        if "ignore" in said:
            return Irrelevant("nothing to act on")
        if "new" in said and not self.knows_new:
            raise MalformedDeliveryError("an unknown word")
        return Changes(tuple(Change(said["repository"], tag) for tag in said.get("tags", ("v1",))))

    def kept_body(self, body):
        return body.replace(b"hunter2", b"[redacted]")


def signed(body: bytes, secret: bytes = SECRET, **headers: str) -> dict[str, str]:
    """Return the headers that prove a body, and others: `x_name="a"` is `X-Name: a`."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"X-Signature": hmac.digest(secret, body, hashlib.sha256).hex(), **more}


def push(repository: str = "team/model", **more: object) -> bytes:
    return json.dumps({"repository": repository, **more}).encode()


async def follow(registry, changes):
    """Ask for a job for each tag but `quiet`."""
    return [
        JobRequest(
            kind="pull",
            lane=Lane.PULL,
            key=f"pull:{registry}/{change.repository}:{change.tag}",
            lock=f"pull:{registry}/{change.repository}:{change.tag}",
            args=b"{}",
            max_attempts=3,
            reference=f"{registry}/{change.repository}:{change.tag}",
        )
        for change in changes
        if change.tag != "quiet"
    ]


def is_read(registry, name):
    """Whether there is a mirror for a repository: for `team` only."""
    return registry == REGISTRY and name.startswith("team/")
