"""Upload sessions, without HTTP: what arrives, what stays, what is published."""

import asyncio
import hashlib
import os
import time

import pytest

from kitd.content.store import MismatchError
from kitd.gateway.byte_range import ByteRange
from kitd.gateway.upload import (
    CROWDED_IDLE_S,
    IDLE_S,
    MAX_SESSIONS,
    TooManyUploadsError,
    UploadBusyError,
    UploadLengthError,
    UploadOffsetError,
    UploadSessions,
    UploadUnknownError,
)
from kitd.oci.digest import Digest, digest_of

CONTENT = bytes(range(256)) * 16


@pytest.fixture
def uploads(store):
    return UploadSessions(store)


async def stream(*chunks):
    for chunk in chunks:
        yield chunk


async def broken(*chunks):
    for chunk in chunks:
        yield chunk
    raise ConnectionResetError


def files(store):
    return sorted(path.name for path in store.uploads_dir.iterdir())


async def test_chunks_in_order_become_the_blob(store, uploads):
    session = await uploads.begin()
    assert await uploads.offset(session) == 0
    assert await uploads.append(session, stream(CONTENT[:1000]), ByteRange(0, 1000)) == 1000
    assert await uploads.append(session, stream(CONTENT[1000:3000])) == 3000
    digest = digest_of(CONTENT)
    await uploads.finish(session, digest, stream(CONTENT[3000:]), ByteRange(3000, 1096))
    assert store.path_of(digest).read_bytes() == CONTENT
    assert store.path_of(digest).stat().st_mode & 0o777 == 0o444
    assert files(store) == []
    with pytest.raises(UploadUnknownError):
        await uploads.offset(session)


async def test_a_chunk_out_of_order_changes_nothing_and_says_where_to_go_on(uploads):
    session = await uploads.begin()
    await uploads.append(session, stream(CONTENT[:100]))
    for start in (0, 99, 101):
        with pytest.raises(UploadOffsetError) as caught:
            await uploads.append(session, stream(CONTENT), ByteRange(start, len(CONTENT)))
        assert caught.value.offset == 100
    assert await uploads.offset(session) == 100


async def test_a_chunk_never_writes_beyond_its_range(store, uploads):
    session = await uploads.begin()
    with pytest.raises(UploadLengthError):
        await uploads.append(session, stream(b"12345", b"678"), ByteRange(0, 6))
    assert await uploads.offset(session) <= 6


async def test_a_chunk_that_ends_early_is_an_error_and_stays(uploads):
    session = await uploads.begin()
    with pytest.raises(UploadLengthError):
        await uploads.append(session, stream(b"1234"), ByteRange(0, 6))
    assert await uploads.offset(session) == 4


async def test_what_arrived_before_the_client_broke_off_can_be_gone_on_with(store, uploads):
    content = os.urandom(3 << 20)
    session = await uploads.begin()
    with pytest.raises(ConnectionResetError):
        await uploads.append(session, broken(content[: 2 << 20], content[2 << 20 :][:10]))
    offset = await uploads.offset(session)
    assert offset == 2 << 20
    rest = ByteRange(offset, len(content) - offset)
    await uploads.finish(session, digest_of(content), stream(content[offset:]), rest)
    assert store.path_of(digest_of(content)).read_bytes() == content


async def test_content_with_another_digest_is_not_published_and_ends_the_session(store, uploads):
    session = await uploads.begin()
    with pytest.raises(MismatchError):
        await uploads.finish(session, digest_of(b"other"), stream(CONTENT))
    assert store.size_of(digest_of(b"other")) is None
    assert store.size_of(digest_of(CONTENT)) is None
    assert files(store) == []


@pytest.mark.parametrize("begun", ["sha256", "sha512"])
async def test_the_algorithm_of_the_digest_decides_whatever_was_hashed_before(
    store, uploads, begun
):
    session = await uploads.begin(begun)
    await uploads.append(session, stream(CONTENT))
    digest = Digest("sha512:" + hashlib.sha512(CONTENT).hexdigest())
    await uploads.finish(session, digest, stream())
    assert store.path_of(digest).read_bytes() == CONTENT


async def test_a_session_outlives_the_process(store, uploads):
    session = await uploads.begin()
    await uploads.append(session, stream(CONTENT[:1000]))
    await uploads.suspend()
    later = UploadSessions(store)
    await later.recover()
    assert await later.offset(session) == 1000
    await later.finish(session, digest_of(CONTENT), stream(CONTENT[1000:]), ByteRange(1000, 3096))
    assert store.path_of(digest_of(CONTENT)).read_bytes() == CONTENT


async def test_a_process_that_was_killed_leaves_its_sessions_too(store, uploads):
    session = await uploads.begin()
    await uploads.append(session, stream(CONTENT))
    later = UploadSessions(store)  # Nobody suspended the first one.
    await later.recover()
    await later.finish(session, digest_of(CONTENT), stream())
    assert store.path_of(digest_of(CONTENT)).read_bytes() == CONTENT
    # What the kernel does for a process that is killed.
    await uploads.suspend()


async def test_only_one_request_writes_to_a_session(uploads):
    session = await uploads.begin()
    first_waits, release = asyncio.Event(), asyncio.Event()

    async def slow():
        yield CONTENT[:100]
        first_waits.set()
        await release.wait()
        yield CONTENT[100:]

    async with asyncio.TaskGroup() as group:
        first = group.create_task(uploads.append(session, slow()))
        await first_waits.wait()
        with pytest.raises(UploadBusyError):
            await uploads.append(session, stream(b"torn"))
        with pytest.raises(UploadBusyError):
            await uploads.finish(session, digest_of(b"torn"), stream())
        with pytest.raises(UploadBusyError):
            await uploads.cancel(session)
        release.set()
    assert first.result() == len(CONTENT)


async def test_a_cancelled_session_leaves_nothing(store, uploads):
    session = await uploads.begin()
    await uploads.append(session, stream(CONTENT))
    await uploads.cancel(session)
    assert files(store) == []
    with pytest.raises(UploadUnknownError):
        await uploads.cancel(session)


async def test_a_whole_blob_that_breaks_off_leaves_nothing(store, uploads):
    with pytest.raises(ConnectionResetError):
        await uploads.receive(digest_of(CONTENT), broken(CONTENT))
    assert files(store) == []


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc/passwd", "00000000-0000-4000-8000-000000000000", "a\0b"]
)
async def test_only_names_that_were_given_out_are_known(uploads, name):
    with pytest.raises(UploadUnknownError):
        await uploads.offset(name)
    with pytest.raises(UploadUnknownError):
        await uploads.append(name, stream(CONTENT))


async def test_foreign_files_are_not_taken_for_sessions(store, uploads):
    (store.uploads_dir / "notes.txt").write_bytes(b"")
    await uploads.recover()
    with pytest.raises(UploadUnknownError):
        await uploads.offset("notes.txt")


def age(store, session, age_s):
    written = time.time() - age_s
    os.utime(store.uploads_dir / session, (written, written))


async def test_idle_sessions_are_swept_also_those_of_an_earlier_process(store, uploads):
    idle, fresh = await uploads.begin(), await uploads.begin()
    age(store, idle, IDLE_S + 60)
    await uploads.suspend()
    await uploads.recover()
    assert await uploads.sweep() == 1
    assert files(store) == [fresh]


async def test_the_number_of_sessions_is_bounded_and_idle_ones_give_way(store, uploads):
    sessions = [await uploads.begin() for _ in range(MAX_SESSIONS)]
    with pytest.raises(TooManyUploadsError):
        await uploads.begin()
    age(store, sessions[0], CROWDED_IDLE_S + 60)
    await uploads.begin()
    with pytest.raises(UploadUnknownError):
        await uploads.offset(sessions[0])
    assert len(files(store)) == MAX_SESSIONS
    await uploads.suspend()


async def test_the_bound_holds_for_sessions_begun_at_once(store, uploads):
    begun = await asyncio.gather(
        *(uploads.begin() for _ in range(MAX_SESSIONS + 8)), return_exceptions=True
    )
    assert sum(isinstance(item, TooManyUploadsError) for item in begun) == 8
    assert len(files(store)) == MAX_SESSIONS
    await uploads.suspend()
