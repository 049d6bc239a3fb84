"""Whether content is what its digest says: looked at where somebody else has refused it."""

from typing import ClassVar

from kitd.content.copy import walk
from kitd.content.store import ContentError, ContentNotFoundError, Fetcher, MismatchError
from kitd.content.verify import verified
from kitd.errors import Disposition
from kitd.oci.descriptor import Descriptor


class DamagedContentError(ContentError):
    """A blob of the cache is not what it was when it was put there."""

    code: ClassVar[str] = "damaged_blob"
    disposition: ClassVar[Disposition] = Disposition.FAIL


async def require_sound(source: Fetcher, root: Descriptor) -> None:
    """Hash a whole graph. Raises `DamagedContentError` for what is damaged; what is absent is not.

    Reads all of it: for those who know already that something is wrong.
    """
    await _check(source, root)
    try:
        nodes = await walk(source, root)
    except ContentNotFoundError:
        return
    except MismatchError as error:
        raise _damaged(str(error)) from error
    for node in nodes:
        await _check(source, node)


async def _check(source: Fetcher, node: Descriptor) -> None:
    try:
        async with source.fetch(node) as stream:
            async for _ in verified(stream, node):
                pass
    except ContentNotFoundError:
        return
    except MismatchError as error:
        raise _damaged(f"the cache holds {node.digest} with other content") from error


def _damaged(what: str) -> DamagedContentError:
    return DamagedContentError(
        what, hint="kitctl cache verify --repair takes it from a registry, or pack the kit again"
    )
