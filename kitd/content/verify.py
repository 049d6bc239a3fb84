"""Reading that does not trust: bounded by the descriptor's size, hashed, checked at the end."""

import hashlib

from kitd.blocking import run_blocking
from kitd.content.store import ByteStream, ContentTooLargeError, Fetcher, MismatchError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import algorithm_of, from_hash
from kitd.oci.manifest import MAX_MANIFEST_BYTES, InvalidManifestError, Manifest, parse_manifest


async def verified(stream: ByteStream, target: Descriptor) -> ByteStream:
    """Yield the chunks of `stream`; raise `MismatchError` unless they are exactly `target`.

    The error comes after the last chunk: who publishes must wait for the end of the iteration.
    """
    hasher = hashlib.new(algorithm_of(target.digest))
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size > target.size:
            break
        hasher.update(chunk)
        yield chunk
    if size != target.size:
        more = "more" if size > target.size else "fewer"
        raise MismatchError(f"{target.digest} came with {more} bytes than its {target.size}")
    if (found := from_hash(hasher)) != target.digest:
        raise MismatchError(f"asked for {target.digest}, got content with digest {found}")


async def read(source: Fetcher, target: Descriptor, *, max_bytes: int) -> bytes:
    """Return the whole verified content of a small blob, such as a manifest or a config.

    Raises `ContentTooLargeError` where the descriptor claims more than `max_bytes`,
    `MismatchError`, `ContentNotFoundError`.
    """
    if target.size > max_bytes:
        raise ContentTooLargeError(
            f"{target.digest} has {target.size} bytes, more than {max_bytes}"
        )
    async with source.fetch(target) as stream:
        return b"".join([chunk async for chunk in verified(stream, target)])


async def read_manifest(source: Fetcher, target: Descriptor) -> Manifest:
    """Return a verified manifest or index. Raises what `read` does, `InvalidManifestError`."""
    _, manifest = await read_whole_manifest(source, target)
    return manifest


async def read_whole_manifest(source: Fetcher, target: Descriptor) -> tuple[bytes, Manifest]:
    """Return a verified manifest or index and its bytes. Raises what `read_manifest` does."""
    content = await read(source, target, max_bytes=MAX_MANIFEST_BYTES)
    try:
        # The largest take a second to parse.
        return content, await run_blocking(parse_manifest, content, target.media_type)
    except InvalidManifestError as error:
        message = f"the manifest {target.digest}: {error.message}"
        raise type(error)(message, hint=error.hint) from error
