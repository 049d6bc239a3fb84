"""Whose turn it is to upload, and who has got a blob."""

import asyncio

import pytest

from kitd.registry.upload_turns import MAX_PLACED, MAX_PLACES, UploadTurns


class FailedError(Exception):
    """Ends a turn badly."""


async def test_turns_follow_each_other_and_each_knows_of_those_before():
    turns, inside, told = UploadTurns(), 0, []

    async def upload():
        nonlocal inside
        async with turns.ticket("r", "d").turn() as somebody_did:
            told.append(somebody_did)
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(upload())
    assert told == [False] + [True] * 9


async def test_what_ended_after_the_ticket_was_drawn_is_told():
    """The registry may have been asked in between, and have had nothing yet."""
    turns = UploadTurns()
    async with turns.ticket("r", "d").turn():
        ticket = turns.ticket("r", "d")
    async with ticket.turn() as somebody_did:
        assert somebody_did


@pytest.mark.parametrize("other", [("r", "e"), ("s", "d")])
async def test_other_content_and_other_registries_wait_for_nobody(other):
    turns = UploadTurns()
    async with turns.ticket("r", "d").turn(), turns.ticket(*other).turn() as somebody_did:
        assert not somebody_did


async def test_after_a_turn_that_failed_comes_the_next():
    turns = UploadTurns()
    with pytest.raises(FailedError):
        async with turns.ticket("r", "d").turn():
            raise FailedError
    async with turns.ticket("r", "d").turn() as somebody_did:
        assert not somebody_did


def test_the_places_of_a_blob_are_the_latest_ones():
    turns = UploadTurns()
    assert turns.places("r", "d") == ()
    for number in range(MAX_PLACES + 1):
        turns.place("r", "d", f"n{number}")
    turns.place("r", "d", "n2")
    assert turns.places("r", "d") == ("n2", "n4", "n3", "n1")
    assert turns.places("s", "d") == ()


def test_only_so_many_blobs_are_remembered():
    turns = UploadTurns()
    for number in range(MAX_PLACED + 1):
        turns.place("r", str(number), "n")
    assert (turns.places("r", "0"), turns.places("r", "1")) == ((), ("n",))
