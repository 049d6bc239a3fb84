"""Registries in use, by what they do otherwise: each a host and the script that stands for it.

The host is what a client believes to talk to, because clients judge by it; requests come through an
HTTP proxy, which the fault registry can be. Limits of a hundred megabytes are a tenth of what they
are, so that blobs of a test reach them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fault_registry.quirks import Quirks

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Habit:
    """One kind of registry."""

    host: str
    quirks: Quirks
    identity: bool = False
    """Whether users come with an identity token instead of a password."""
    chunk_bytes: int | None = None
    """How large a user sets the chunks, where the habit is about chunks and the host is not."""
    attempts: int = 1
    """How often a copy may be tried, where trouble is the habit."""


HABITS: Mapping[str, Habit] = {
    "ghcr": Habit(
        "ghcr.io",
        Quirks(
            auth="bearer",
            token_methods=("GET",),
            max_chunk_bytes=4 * MIB,
            location="relative",
            referrers=False,
            null_tags=True,
            cancel=False,
        ),
    ),
    "gar": Habit(
        "europe-docker.pkg.dev",
        Quirks(auth="bearer", chunked=False, upload_status=False, single_post=False),
    ),
    "ecr": Habit(
        "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
        Quirks(
            auth="basic",
            least_part_bytes=5 * MIB,
            patch_status=201,
            mount="never",
            redirect_blobs=True,
            upload_status=False,
            cancel=False,
            page_size=100,
        ),
    ),
    "hub": Habit(
        "docker.io",
        Quirks(auth="bearer", anonymous_pull=True, redirect_blobs=True, page_size=100),
    ),
    "harbor": Habit("harbor.example.com", Quirks(auth="bearer", location="relative")),
    "quay": Habit(
        "quay.io",
        Quirks(
            auth="bearer",
            redirect_blobs=True,
            upload_ranges="quay",
            empty_type="text/html; charset=utf-8",
            cancel=False,
            page_size=50,
        ),
    ),
    "zot": Habit("zot.example.com", Quirks(auth="basic", location="relative"), chunk_bytes=MIB),
    "acr": Habit(
        "example.azurecr.io",
        Quirks(auth="bearer", token_methods=("POST",), redirect_blobs=True),
        identity=True,
    ),
    "cloudflare": Habit("registry.example.com", Quirks(auth="basic", max_body_bytes=10 * MIB)),
    "gitlab": Habit(
        "gitlab.example.com",
        Quirks(auth="bearer", strict_state=True, referrers=False, redirect_blobs=True),
        chunk_bytes=4 * MIB,
    ),
    "gitea": Habit(
        "gitea.example.com",
        Quirks(auth="bearer", challenges="several", patch_range=False, page_size=1),
        chunk_bytes=4 * MIB,
    ),
    "object store": Habit(
        "s3.example.com",
        Quirks(least_chunk_bytes=6 * MIB, commit_s=0.2, location="bare", mount="refused"),
        chunk_bytes=MIB,
    ),
    "headless": Habit(
        "headless.example.com",
        Quirks(head=False, digest_header="none", ranges="ignored", referrers=False),
    ),
    "behind a proxy": Habit("127.0.0.1", Quirks(location="portless", auth="bearer")),
    "stingy": Habit(
        "stingy.example.com",
        Quirks(accepts_bytes=3 * MIB, ranges="refused", mount="never"),
        chunk_bytes=4 * MIB,
    ),
    "forgetful": Habit(
        "forgetful.example.com",
        Quirks(auth="bearer", token_s=1.0, token_told_s=300.0, forget_uploads=2, fail_every=41),
        chunk_bytes=4 * MIB,
        attempts=5,
    ),
    "brittle": Habit(
        "brittle.example.com",
        Quirks(cut_received_bytes=3 * MIB, cut_sent_bytes=5 * MIB, cuts=20),
        chunk_bytes=4 * MIB,
        attempts=5,
    ),
}
