"""How registries take uploads: what is known of them by their host, and what is learned. Pure.

No size of chunk works everywhere: one registry refuses PATCH bodies above 4 MiB, another wants
parts of 5 MiB at least, and several know no chunked upload at all. What is not in the table is
learned from answers that can mean nothing else, and believed once an upload has ended well with it.

Registries that are known by their software and not by their host (distribution, Harbor, zot,
whatever stands behind Cloudflare) take what the last row says.
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import assert_never

from kitd.registry.settings import RegistrySettings, UploadMode

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadProfile:
    """How blobs are uploaded to a registry."""

    mode: UploadMode = UploadMode.AUTO
    """`AUTO` is in one request or in chunks, by the size of the blob."""
    takes_chunks: bool = True
    chunk_bytes: int = 64 * MIB
    """Proxies are often set to take 100 MB as one request, and no more."""
    least_bytes: int = 512 * KIB
    """No smaller chunk is tried, but for the last."""
    whole_bytes: int = 64 * MIB
    """Up to this size a blob goes in one request: it is not worth resuming."""
    refused_bytes: int | None = None
    """The smallest blob that was refused as one request."""
    max_blob_bytes: int | None = None
    mounts_unasked: bool = True
    """Whether a mount that names no repository is answered as the plain request for a session that
    it is to registries which cannot tell who has the blob."""

    def mode_for(self, size: int) -> UploadMode:
        """Return how a blob of so many bytes goes; never `AUTO`."""
        if self.mode is not UploadMode.AUTO:
            return self.mode
        refused = self.refused_bytes is not None and size >= self.refused_bytes
        chunked = self.takes_chunks and (refused or size > self.whole_bytes)
        return UploadMode.CHUNKED if chunked else UploadMode.MONOLITHIC


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A request with so many bytes was refused for its size (413, or 416 to a chunk in step)."""

    sent_bytes: int
    mode: UploadMode


@dataclass(frozen=True, slots=True)
class ChunksUnsupported:
    """A chunk was refused as something that the registry does not know."""


@dataclass(frozen=True, slots=True)
class LeastChunk:
    """The registry named the smallest chunk that it takes (`OCI-Chunk-Min-Length`)."""

    chunk_bytes: int


Observation = TooLarge | ChunksUnsupported | LeastChunk


@dataclass(frozen=True, slots=True)
class Lessons:
    """What was learned of a registry and held: the part of a profile that outlives an upload."""

    takes_chunks: bool
    chunk_bytes: int
    refused_bytes: int | None


_CHUNKED_4 = UploadProfile(chunk_bytes=4 * MIB, mounts_unasked=False)
_ECR = UploadProfile(
    chunk_bytes=10 * MIB,
    least_bytes=5 * MIB,
    max_blob_bytes=52_000 * MIB,
    mounts_unasked=False,
)
_ECR_PUBLIC = replace(_ECR, max_blob_bytes=10_000 * MIB)
_WHOLE = UploadProfile(takes_chunks=False, mounts_unasked=False)
_HOSTED = UploadProfile(mounts_unasked=False)

PROFILES: tuple[tuple[str, UploadProfile], ...] = (
    # Answers 416 to a chunk of more than 4 MiB. One request takes any size, and never resumes.
    ("ghcr.io", _CHUNKED_4),
    ("gcr.io", _WHOLE),
    ("*.gcr.io", _WHOLE),
    ("*.pkg.dev", _WHOLE),
    # Parts of 5 MiB at least, but for the last; 201 instead of 202 for each.
    ("public.ecr.aws", _ECR_PUBLIC),
    ("*.amazonaws.com", _ECR),
    ("*.amazonaws.com.cn", _ECR),
    ("*.on.aws", _ECR),
    ("docker.io", _HOSTED),
    ("quay.io", _HOSTED),
    ("*.azurecr.io", replace(_HOSTED, chunk_bytes=16 * MIB)),
    ("*", UploadProfile()),
)
"""By host, the first that fits."""


def profile_for(
    registry: str, settings: RegistrySettings, lessons: Lessons | None = None
) -> UploadProfile:
    """Return how blobs go to a registry (`host[:port]`): settings before lessons before the table.

    What the settings decide is not up to lessons.
    """
    host = registry.partition(":")[0].lower()
    profile = next(profile for pattern, profile in PROFILES if fnmatchcase(host, pattern))
    if lessons is not None and settings.upload_mode is UploadMode.AUTO:
        profile = replace(
            profile,
            takes_chunks=lessons.takes_chunks,
            chunk_bytes=lessons.chunk_bytes,
            refused_bytes=lessons.refused_bytes,
        )
    if settings.chunk_bytes is not None:
        # Who set a size of chunk wants no request to be larger.
        chunk_bytes = settings.chunk_bytes
        profile = replace(profile, chunk_bytes=chunk_bytes, whole_bytes=chunk_bytes)
    return replace(profile, mode=settings.upload_mode)


def learn(profile: UploadProfile, observation: Observation) -> UploadProfile | None:
    """Return what to try after an observation; None where there is nothing left to try."""
    match observation:
        case LeastChunk(chunk_bytes):
            return replace(
                profile,
                least_bytes=max(profile.least_bytes, chunk_bytes),
                chunk_bytes=max(profile.chunk_bytes, chunk_bytes),
            )
        case ChunksUnsupported():
            unlearnable = profile.mode is not UploadMode.AUTO or profile.refused_bytes is not None
            if unlearnable or not profile.takes_chunks:
                return None
            return replace(profile, takes_chunks=False)
        case TooLarge(sent_bytes, UploadMode.MONOLITHIC):
            if profile.mode is not UploadMode.AUTO or not profile.takes_chunks:
                return None
            return _smaller(replace(profile, refused_bytes=sent_bytes), sent_bytes)
        case TooLarge(sent_bytes, UploadMode.CHUNKED):
            return _smaller(profile, sent_bytes)
        case TooLarge():
            return None
        case _:
            assert_never(observation)


def lessons_of(profile: UploadProfile) -> Lessons:
    """Return what is worth remembering of a profile with which an upload has ended well."""
    return Lessons(profile.takes_chunks, profile.chunk_bytes, profile.refused_bytes)


def _smaller(profile: UploadProfile, refused_bytes: int) -> UploadProfile | None:
    """Return the profile with chunks of half of what was refused, or of the least that is left."""
    tried = min(profile.chunk_bytes, refused_bytes)
    if tried <= profile.least_bytes:
        return None
    return replace(profile, chunk_bytes=max(tried // 2, profile.least_bytes))
