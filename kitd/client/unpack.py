"""A planned unpack, from the daemon to a directory of the caller's."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from kitd.client import request, work
from kitd.client.client import Client
from kitd.client.connection import MAX_DESCRIPTORS, close_all
from kitd.client.error import ArgumentError, RpcError
from kitd.client.extract import Extraction, LooseFile, OpenLayer, extract
from kitd.client.outcome import Choice, Unpacked
from kitd.client.placement import Existing
from kitd.client.record import Layer, MissingKit, Progress, RemoteDataset, UnpackPlan
from kitd.client.reference import has_registry
from kitd.client.show import Watch, watching
from kitd.errors import KitdError, printable


class IncompleteKitError(KitdError):
    """A kit refers to another that is not in the cache, and cannot be pulled."""

    code = "incomplete_kit"


def unpack_kit(
    client: Client,
    reference: str,
    directory: str | os.PathLike[str],
    filters: Sequence[str],
    *,
    existing: Choice,
    include_remote: bool,
    progress: Watch,
) -> Unpacked:
    """Unpack a kit, which is pulled first where the cache does not know it: `Client.unpack`."""
    choice, target = _choice(existing), _target(directory)

    def pull(missing: MissingKit) -> None:
        asked = work.pull(missing.reference, missing.filters, parents=False)
        client.run(asked, progress=progress)

    plan = complete_plan(client, reference, filters, include_remote=include_remote, pull=pull)
    with watching(progress) as watch:
        extraction = unpack(
            client,
            plan,
            target,
            existing=choice,
            stores=os.environ if include_remote else None,
            progress=watch,
        )
    left_out = () if include_remote else tuple(remote.path for remote in plan.remotes)
    return Unpacked(
        digest=plan.digest,
        reference=plan.reference,
        directory=str(target),
        files=extraction.files,
        bytes=extraction.bytes,
        notes=plan.notes + backup_notes(target, extraction),
        left_out=left_out,
    )


def _choice(existing: str) -> Existing:
    try:
        return Existing(existing)
    except ValueError:
        choices = ", ".join(each.value for each in Existing)
        raise ArgumentError(
            f"existing is {existing!r:.60}", hint=f"say one of: {choices}"
        ) from None


def _target(directory: str | os.PathLike[str]) -> Path:
    target = os.path.abspath(directory)
    try:
        is_name = b"\0" not in os.fsencode(target)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise ArgumentError(f"{printable(target)} is not the name of a directory")
    return Path(target)


def backup_notes(target: Path, extraction: Extraction) -> tuple[str, ...]:
    """Return what to say of files that an unpack which was killed had replaced in the target."""
    return tuple(
        f"{printable(str(target / name))} has files that an unpack which was killed had replaced:"
        " move back what you need, and remove it"
        for name in extraction.backups
    )


def complete_plan(
    client: Client,
    reference: str,
    filters: Sequence[str],
    *,
    include_remote: bool,
    pull: Callable[[MissingKit], None],
) -> UnpackPlan:
    """Return the plan of an unpack, once all that the cache does not know was pulled.

    Of the kits that it refers to only what is needed of them is. Raises `IncompleteKitError`, and
    what `Client.call` and `pull` raise.
    """
    asked = request.plan_unpack(reference, filters, include_remote=include_remote or None)
    pulled: set[MissingKit] = set()
    try:
        plan = client.call(asked)
    except RpcError as error:
        # Without a registry there is nowhere to pull it from.
        if error.code != "not_found" or not has_registry(reference):
            raise
        pull(MissingKit(reference, tuple(filters)))
        plan = client.call(asked)
    # Each round shows what the kit refers to that the one before has brought.
    while plan.missing:
        missing = plan.missing[0]
        name = printable(missing.reference)
        if missing in pulled or not has_registry(missing.reference):
            raise IncompleteKitError(
                f"{printable(reference)} needs {name}, which is not in the cache",
                hint=f"pack it as {name}, or pull it from where it is and kitctl tag it so;"
                " or unpack less with a filter",
            )
        pulled.add(missing)
        pull(missing)
        plan = client.call(asked)
    return plan


def unpack(
    client: Client,
    plan: UnpackPlan,
    target: Path,
    *,
    existing: Existing = Existing.REFUSE,
    stores: Mapping[str, str] | None = None,
    progress: Callable[[Progress], None],
) -> Extraction:
    """Unpack what `kitd.client.request.plan_unpack` answered, and nothing of which is missing.

    The daemon opens the layers, this process writes the files. With `stores`, an environment in
    which `S3_*` and `~/.netrc` say where objects are and who asks for them, it fetches remote
    datasets as well.
    Raises what `Client.call` and `kitd.client.extract.extract` raise, and `RemoteDatasetError`;
    whatever it raises, the target is as it was, but for a signal that comes when all files have
    their names: they keep them.
    """
    remotes = () if stores is None else plan.remotes
    total, done = sum(layer.size for layer in plan.layers), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(Progress("unpacking", done, total))

    with (
        closing(_open_layers(client, plan)) as layers,
        closing(_open_remotes(remotes, stores or {}, advance)) as files,
    ):
        return extract(
            target,
            layers,
            kitfile=plan.kitfile,
            files=files,
            existing=existing,
            progress=advance,
        )


def _open_layers(client: Client, plan: UnpackPlan) -> Generator[OpenLayer]:
    for batch in _batches(plan.layers):
        handles = client.open_layers(batch[0].kit or plan.digest, [layer.digest for layer in batch])
        try:
            for layer in batch:
                yield OpenLayer(layer, handles[0])
                os.close(handles.pop(0))
        finally:
            close_all(handles)


def _batches(layers: Sequence[Layer]) -> Iterator[Sequence[Layer]]:
    """Yield layers in order, to be opened together; what kitd fetches comes when it is read."""
    batch: list[Layer] = []
    for layer in layers:
        if batch and (
            layer.elsewhere
            or batch[-1].elsewhere
            or layer.kit != batch[-1].kit
            or len(batch) == MAX_DESCRIPTORS
        ):
            yield batch
            batch = []
        batch.append(layer)
    if batch:
        yield batch


def _open_remotes(
    remotes: Sequence[RemoteDataset], stores: Mapping[str, str], progress: Callable[[int], None]
) -> Generator[LooseFile]:
    if not remotes:
        return
    # HTTP and TLS take longer to load than all else: few unpacks need them.
    from kitd.client.object_store import open_object, store_of  # noqa: PLC0415
    from kitd.client.web_file import SCHEME, open_file  # noqa: PLC0415

    for remote in remotes:
        url, expected = remote.remote_path, remote.remote_hash
        if url.startswith(SCHEME):
            opened = open_file(stores, url, expected)
        else:
            opened = open_object(store_of(stores), url, expected)
        with opened as content:
            chunks = _counted(content.chunks, progress)
            yield LooseFile(remote.path, content.size, chunks)


def _counted(chunks: Iterator[bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        progress(len(chunk))
        yield chunk
