"""What registries take as an upload, by their host. Pure.

No size of chunk works everywhere: one registry refuses PATCH bodies above 4 MiB, another wants
parts of 5 MiB at least, and several know no chunked upload at all.
"""

from dataclasses import dataclass

from kitd.registry.settings import RegistrySettings, UploadMode

LARGE_BYTES = 100 * 1024 * 1024
"""From this size on an upload is worth resuming, where the registry can."""
CHUNK_BYTES = 64 * 1024 * 1024
"""Below the 100 MB that common proxies take as one request."""

_MONOLITHIC_HOSTS = ("ghcr.io", "gcr.io")
_MONOLITHIC_SUFFIXES = (".gcr.io", ".pkg.dev", ".amazonaws.com", ".amazonaws.com.cn")


@dataclass(frozen=True, slots=True)
class UploadProfile:
    """How one blob is uploaded; `mode` is never `AUTO`."""

    mode: UploadMode
    chunk_bytes: int


def profile_for(registry: str, settings: RegistrySettings, size: int) -> UploadProfile:
    """Return how a blob of `size` bytes goes to a registry (`host[:port]`)."""
    mode = settings.upload_mode
    if mode is UploadMode.AUTO:
        host = registry.partition(":")[0].lower()
        whole = host in _MONOLITHIC_HOSTS or host.endswith(_MONOLITHIC_SUFFIXES)
        # Who set a size of chunk wants no request to be larger.
        most = LARGE_BYTES if settings.chunk_bytes is None else settings.chunk_bytes + 1
        mode = UploadMode.MONOLITHIC if whole or size < most else UploadMode.CHUNKED
    return UploadProfile(mode, settings.chunk_bytes or CHUNK_BYTES)
