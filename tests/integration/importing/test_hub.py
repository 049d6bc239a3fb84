"""A hub, asked and read over real sockets: as it should be, and as it should not."""

import pytest

from hub_server import COMMIT
from kitd.hub.error import (
    HubContentError,
    HubDeniedError,
    HubError,
    HubNotFoundError,
    HubUnavailableError,
    InvalidHubTreeError,
)
from kitd.hub.tree import MAX_ENTRIES, HubFile, hub_source
from kitd.importing.hub import MAX_PAGE_BYTES, MAX_REVISION_BYTES
from kitd.importing.web import ATTEMPTS

SOURCE = hub_source("Org/Name", None)
TOKEN = "hf_a-secret-of-somebody"


async def fetch_all(client, place, seen=None):
    """Fetch what the hub has; return how many bytes came for each file."""
    place.mkdir(exist_ok=True)
    snapshot = await client.snapshot(SOURCE)
    progress = [] if seen is None else seen
    return {
        file.path: await client.fetch(SOURCE, COMMIT, file, place, progress.append)
        for file in snapshot.files
    }


async def only(client, path):
    """Return one file of what the hub has."""
    (found,) = [file for file in (await client.snapshot(SOURCE)).files if file.path == path]
    return found


async def test_everything_arrives_and_equal_content_once(hub, content, tmp_path):
    server, client = await hub(page=2, tags=("license:mit",))
    snapshot = await client.snapshot(SOURCE)
    assert (snapshot.commit, snapshot.licence) == (COMMIT, "mit")
    assert {file.path for file in snapshot.files} == {
        str(path.relative_to(content)) for path in server.files()
    }
    received = await fetch_all(client, tmp_path / "blobs")
    for file in snapshot.files:
        here = tmp_path / "blobs" / file.identity
        assert here.read_bytes() == (content / file.path).read_bytes()
    assert sorted(received.values()) == [0, 0, 2, 8, 3_072_000]
    assert not list((tmp_path / "blobs").glob("*.part"))


async def test_a_dataset_has_addresses_of_its_own(hub, tmp_path):
    server, client = await hub()
    server.kind = "datasets"
    source = hub_source("datasets/Org/Name", None)
    snapshot = await client.snapshot(source)
    for file in snapshot.files:
        await client.fetch(source, COMMIT, file, tmp_path, lambda _: None)
        assert (tmp_path / file.identity).stat().st_size == file.size


async def test_the_token_goes_to_the_hub_and_to_nobody_else(hub, tmp_path):
    server, client = await hub(token=TOKEN)
    server.quirks.token = TOKEN
    await fetch_all(client, tmp_path / "blobs")
    shown = {(name, authorization) for name, _, authorization, _ in server.asked}
    assert shown == {("hub", f"Bearer {TOKEN}"), ("storage", None)}


async def test_who_has_no_token_is_told_what_to_do(hub):
    server, client = await hub()
    server.quirks.token = TOKEN
    with pytest.raises(HubDeniedError) as caught:
        await client.snapshot(SOURCE)
    assert "hub.token_file" in (caught.value.hint or "")
    _, open_client = await hub()
    with pytest.raises(HubNotFoundError):
        await open_client.snapshot(hub_source("Org/Other", None))


async def test_a_busy_hub_is_asked_again_and_not_for_ever(hub, tmp_path):
    server, client = await hub(busy={"/tree/": 2, "config.json": ATTEMPTS - 1})
    await fetch_all(client, tmp_path / "blobs")
    server.quirks.busy["/revision/"] = ATTEMPTS
    with pytest.raises(HubUnavailableError, match="503"):
        await client.snapshot(SOURCE)


async def test_what_breaks_off_is_gone_on_with_for_as_long_as_something_comes(hub, tmp_path):
    server, client = await hub(cut={"model.safetensors": 8, "config.json": 1})
    file, small = [await only(client, name) for name in ("model.safetensors", "config.json")]
    seen = []
    assert await client.fetch(SOURCE, COMMIT, file, tmp_path, seen.append) == file.size
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, file.size)
    assert await client.fetch(SOURCE, COMMIT, small, tmp_path, seen.append) == small.size
    # Each time at the hub and where it redirects to.
    assert server.counts() == {"model.safetensors": 18, "config.json": 2}


async def test_ranges_begin_where_the_last_answer_ended(hub, content, tmp_path):
    server, client = await hub(cut={"model.safetensors": 3})
    file = await only(client, "model.safetensors")
    received = await client.fetch(SOURCE, COMMIT, file, tmp_path, lambda _here: None)
    offsets = [
        int(found.removeprefix("bytes=").removesuffix("-")) if found else 0
        for name, path, _, found in server.asked
        if name == "storage"
    ]
    assert offsets == sorted(set(offsets))
    assert len(offsets) == 4
    assert received == file.size
    assert (tmp_path / file.identity).read_bytes() == (content / file.path).read_bytes()


async def test_a_hub_without_ranges_sends_all_again(hub, content, tmp_path):
    _server, client = await hub(cut={"model.safetensors": 2}, ignores_ranges=True)
    file = await only(client, "model.safetensors")
    assert await client.fetch(SOURCE, COMMIT, file, tmp_path, lambda _here: None) > file.size
    assert (tmp_path / file.identity).read_bytes() == (content / file.path).read_bytes()


async def test_a_part_of_an_earlier_life_is_gone_on_with_and_checked(hub, content, tmp_path):
    _server, client = await hub()
    file = await only(client, "model.safetensors")
    whole = (content / file.path).read_bytes()
    part = tmp_path / f"{file.identity}.part"
    part.write_bytes(whole[:1_000_000])
    assert await client.fetch(SOURCE, COMMIT, file, tmp_path, lambda _: None) == file.size - 10**6
    (tmp_path / file.identity).unlink()
    # What is wrong is found at the end, and not gone on with again.
    part.write_bytes(b"x" * 1_000_000)
    with pytest.raises(HubContentError, match="not what was listed"):
        await client.fetch(SOURCE, COMMIT, file, tmp_path, lambda _: None)
    assert list(tmp_path.glob(f"{file.identity}*")) == []
    part.write_bytes(whole + b"more")
    await client.fetch(SOURCE, COMMIT, file, tmp_path, lambda _: None)
    assert (tmp_path / file.identity).read_bytes() == whole


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
async def test_other_bytes_than_listed_are_refused(hub, tmp_path, path):
    _server, client = await hub(wrong={path})
    file = await only(client, path)
    with pytest.raises(HubContentError, match="its hash is"):
        await client.fetch(SOURCE, COMMIT, file, tmp_path, lambda _: None)
    assert not (tmp_path / file.identity).exists()


async def test_what_the_redirect_tells_has_to_agree(hub, tmp_path):
    server, client = await hub(linked_size=1)
    file = await only(client, "model.safetensors")
    with pytest.raises(HubContentError, match="by now"):
        await client.fetch(SOURCE, COMMIT, file, tmp_path, lambda _: None)
    server.quirks.linked_size = 0
    other = HubFile(path=file.path, size=file.size, blob="", sha256="0" * 64)
    with pytest.raises(HubContentError, match="not what was listed"):
        await client.fetch(SOURCE, COMMIT, other, tmp_path, lambda _: None)
    longer = HubFile(path="config.json", size=1, blob="0" * 40, sha256="")
    with pytest.raises(HubContentError, match="would have 2 bytes"):
        await client.fetch(SOURCE, COMMIT, longer, tmp_path, lambda _: None)


async def test_a_stall_ends_the_attempt(hub, tmp_path):
    _server, client = await hub(silence_s=0.2, stall={"model.safetensors"})
    file = await only(client, "model.safetensors")
    with pytest.raises(HubUnavailableError, match="in time"):
        # Each attempt gets half of the rest, until there is nothing to be halved.
        await client.fetch(SOURCE, COMMIT, file, tmp_path, lambda _: None)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/api/models/Org/Name/tree/x", "ftp://x/y", "http://[broken"]
)
async def test_the_next_page_is_the_hubs_own(hub, address):
    _, client = await hub(page=1, next_page=address)
    with pytest.raises(HubError, match="next page"):
        await client.snapshot(SOURCE)


async def test_pages_without_end_have_one(hub):
    server, client = await hub(page=0)
    server.quirks.listed = [{"type": "directory", "path": "d"}]
    with pytest.raises(HubError, match="next page"):
        await client.snapshot(SOURCE)


async def test_directories_without_end_have_one(hub):
    directory = {"type": "directory", "path": "d"}
    server, client = await hub(page=20_000, listed=[directory] * (5 * MAX_ENTRIES))
    with pytest.raises(InvalidHubTreeError, match="more than 40000 entries"):
        await client.snapshot(SOURCE)
    assert sum("/tree/" in path for _, path, _, _ in server.asked) == 3


async def test_a_list_has_so_many_bytes_at_most(hub):
    directory = {"type": "directory", "path": "d" * (3 << 20)}
    server, client = await hub(page=1, listed=[directory] * 30)
    with pytest.raises(InvalidHubTreeError, match="64 MiB"):
        await client.snapshot(SOURCE)
    assert sum("/tree/" in path for _, path, _, _ in server.asked) == 22


@pytest.mark.parametrize(
    "quirks",
    [
        {"tags": ("x" * MAX_REVISION_BYTES,)},
        {"listed": [{"type": "directory", "path": "d" * MAX_PAGE_BYTES}]},
    ],
)
async def test_answers_are_no_larger_than_can_be_read_at_once(hub, quirks):
    _, client = await hub(**quirks)
    with pytest.raises(HubError, match="has more than"):
        await client.snapshot(SOURCE)


async def test_hostile_names_end_it_before_anything_is_fetched(hub):
    server, client = await hub(
        listed=[{"type": "file", "path": "../../x", "size": 1, "oid": "a" * 40}]
    )
    with pytest.raises(InvalidHubTreeError, match="leads out"):
        await client.snapshot(SOURCE)
    assert server.counts() == {}


async def test_nobody_there_is_worth_another_try(hub, stack):
    server, client = await hub()
    await server.__aexit__()
    with pytest.raises(HubUnavailableError, match=r"reached|broke"):
        await client.snapshot(SOURCE)
