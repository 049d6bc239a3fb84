"""Who has a lease is spared, and who comes while something is condemned waits."""

import asyncio

import pytest

from kitd.oci.digest import digest_of
from kitd.store.lease import MAX_PROMISES, LeaseBook

A, B = digest_of(b"a"), digest_of(b"b")


class Hands:
    """A clock with hands."""

    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Hands()


@pytest.fixture
def book(clock):
    return LeaseBook(clock)


async def test_what_anybody_leases_is_not_free(book):
    with book.hold() as one, book.hold() as other:
        await one.take(A, A)
        await other.take(A)
        one.release()
        with book.condemn([A, B]) as free:
            assert free == {B}
    assert not book.is_leased(A)
    with book.condemn([A, B]) as free:
        assert free == {A, B}


async def test_a_lease_that_fails_half_way_lets_go_of_all(book):
    lease = book.hold()
    with book.condemn([B]), lease:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await lease.take(A, B)
        assert book.leased() == {A}
    assert book.leased() == frozenset()


async def test_whoever_wants_what_is_condemned_waits_until_it_is_decided(book):
    with book.hold() as lease:
        with book.condemn([A]) as free:
            assert free == {A}
            taking = asyncio.create_task(lease.take(B, A))
            await asyncio.sleep(0)
            assert (book.is_leased(B), book.is_leased(A), taking.done()) == (True, False, False)
        await taking
        assert book.is_leased(A)


async def test_a_wait_that_is_cancelled_leaves_no_lease(book):
    with book.hold() as lease, book.condemn([A]):
        taking = asyncio.create_task(lease.take(A))
        await asyncio.sleep(0)
        taking.cancel()
        await asyncio.wait([taking])
    assert book.leased() == frozenset()


async def test_a_collection_that_fails_condemns_nothing_for_longer(book):
    with pytest.raises(OSError, match="full"), book.condemn([A]):
        raise OSError("full")
    async with asyncio.timeout(1):
        with book.hold() as lease:
            await lease.take(A)


async def test_work_that_goes_on_after_its_release_keeps_nothing(book):
    """It was given up, and nothing that it makes is recorded."""
    lease = book.hold()
    lease.release()
    await lease.take(A)
    assert book.leased() == frozenset()


async def test_a_promise_ends_by_itself(book, clock):
    await book.promise(A, 10)
    await book.promise(B, 20)
    assert book.leased() == {A, B}
    clock.now_s += 10
    assert (book.is_leased(A), book.is_leased(B)) == (False, True)
    assert book.leased() == {B}


async def test_promises_are_bounded_and_the_oldest_is_broken_first(book):
    digests = [digest_of(b"%d" % number) for number in range(3)]
    for number in range(MAX_PROMISES):
        await book.promise(number, 10)
    await book.promise(0, 10)
    for digest in digests:
        await book.promise(digest, 10)
    assert len(book.leased()) == MAX_PROMISES
    assert [book.is_leased(d) for d in (0, 1, 2, 3, 4, *digests)] == [
        True, False, False, False, True, True, True, True,
    ]  # fmt: skip
