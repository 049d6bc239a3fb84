"""What the registry does otherwise than the specification says, or fails to do. Pure.

A `Quirks` without arguments is a registry as it should be. As JSON a script is an object with the
names of the fields, on the command line or posted to `/-/quirks` of a registry that runs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """One script. Sizes are in bytes, times in seconds; 0 and None mean never or no limit."""

    # Who may come in. The user is `USER`, the password `PASSWORD`, the identity token
    # `IDENTITY_TOKEN` of `access.py`.
    auth: str = "none"
    """`none`, `basic` or `bearer`."""
    challenges: str = "one"
    """`one`, or `several`: schemes that nobody knows beside it, in one header."""
    anonymous_pull: bool = False
    token_s: float = 300.0
    """How long a token is good for."""
    token_told_s: float | None = None
    """What `expires_in` says instead."""
    token_methods: tuple[str, ...] = ("GET", "POST")
    token_checked_midway: bool = False
    """A body that takes longer than its token lives ends in 401 before it was read."""

    # How uploads are taken.
    chunked: bool = True
    """Whether there is a PATCH at all."""
    patch_status: int = 202
    patch_range: bool = True
    """Whether the answer to a PATCH says what arrived."""
    accepts_bytes: int = 0
    """How much of a PATCH is kept."""
    max_chunk_bytes: int = 0
    """A PATCH that declares more is refused with 416."""
    max_body_bytes: int = 0
    """A body that is larger is refused with 413, declared or not."""
    least_chunk_bytes: int = 0
    """Announced as OCI-Chunk-Min-Length; what has shorter parts before its last is refused."""
    least_part_bytes: int = 0
    """The same, announced nowhere."""
    single_post: bool = True
    """Whether a blob may come with the POST that begins its upload."""
    upload_status: bool = True
    upload_ranges: str = "inclusive"
    """How it is said what an upload has: `inclusive`, or as `quay` does, whose answers to all but
    chunks name one byte more, and `bytes=`."""
    cancel: bool = True
    location: str = "absolute"
    """`absolute`, `relative` (to the host), `portless` or `bare` (relative to the request)."""
    strict_state: bool = False
    """A Location is good only while nothing arrived after it was given: a request that was cut in
    its middle costs the whole upload, as with distribution 2."""
    session_s: float = 0.0
    """How long an upload is kept that nothing was written to."""
    forget_uploads: int = 0
    """So many uploads are forgotten once they have got their first bytes."""
    commit_s: float = 0.0
    """How long the request that ends an upload is without an answer."""
    mount: str = "yes"
    """`yes`, `never` (202, an upload instead) or `refused` (405)."""
    sha512: bool = True

    # What answers look like.
    head: bool = True
    """Whether there is a HEAD of anything."""
    empty_type: str = ""
    """The Content-Type of answers that have no content."""
    digest_header: str = "right"
    """`right`, `none` or `wrong`."""
    length_lie: int = 0
    """So many bytes more (or less) than there are in the Content-Length of a blob."""
    corrupt_blobs: int = 0
    """So many downloads have one byte that is another."""
    ranges: str = "yes"
    """`yes`, `ignored` (200 and everything) or `refused` (416)."""
    redirect_blobs: bool = False
    """Blobs come from another port, which refuses requests with an Authorization header."""
    referrers: bool = True
    catalog: bool = True
    """Whether repositories are listed."""
    removes_tags: bool = True
    """Whether a manifest can be deleted by a tag, which leaves it to its other tags."""
    null_tags: bool = False
    """A repository without tags lists `null`."""
    page_size: int = 0
    """The most entries of a page of tags, repositories or referrers."""
    checks_manifests: bool = True
    """Whether what a manifest names must be there."""
    endless: str = ""
    """`tags`, `tag_page`, `manifest`, `referrers` or `redirects`: what has no end."""

    # Trouble.
    cut_received_bytes: int = 0
    """The connection is cut once so much of a body has come."""
    cut_sent_bytes: int = 0
    """The connection is cut once so much of a blob was sent."""
    cuts: int = 1_000_000
    """How often that happens."""
    received_bytes_per_s: float = 0.0
    sent_bytes_per_s: float = 0.0
    """Each of one connection."""
    delay_s: float = 0.0
    """Before every answer."""
    fail_every: int = 0
    """Every n-th request is answered with `fail_status`."""
    fail_status: int = 503
    fail_kinds: tuple[str, ...] = ()
    """Only requests of these kinds (`tally.py`) fail; all if there are none."""
    fail_path: str = ""
    """Only requests whose path ends like this fail."""
    busy_share: float = 0.0
    """So many of all requests are answered with 429: 0.3 is every third, roughly."""
    retry_after: str = "seconds"
    """`seconds`, `date`, `none` or `nonsense`: how the 429 says for how long."""
    busy_s: float = 1.0
    """For how long. Nobody may ask for anything meanwhile; those who do are noted."""
    pulls: int | None = None
    """So many manifests may be read, as at Docker Hub: each answer says how many are left."""
    seed: int = 1
    """Where what is random begins."""

    def changed(self, script: Mapping[str, Any]) -> "Quirks":
        """Return these with the fields of a script. Raises `ValueError` for one that is none."""
        known = {field.name for field in fields(self)}
        if unknown := script.keys() - known:
            raise ValueError(f"no quirks: {', '.join(sorted(unknown))}")
        return replace(
            self,
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in script.items()
            },
        )


def parse_quirks(text: str) -> Quirks:
    """Return a script that is JSON. Raises `ValueError`."""
    return Quirks().changed(dict(json.loads(text)))
