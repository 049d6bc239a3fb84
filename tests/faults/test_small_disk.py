"""A full disk stops nothing for good: kitd waits for room, and then does what it was asked."""

import pytest

KIB = 1024


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("room_bytes", [64 * KIB, 300 * KIB, 1400 * KIB, 3300 * KIB])
def test_a_disk_that_fills_up_makes_kitd_wait_and_costs_no_attempt(
    room_bytes, mount_disk, run_small_disk, docker_registry
):
    """Too little for the ledger, for a kit, for two, for four."""
    seen = run_small_disk(mount_disk("48m"), docker_registry.host, "--room", room_bytes)
    assert not seen["wrong"], "\n".join(seen["wrong"])
    # The test must have had a disk to fill.
    assert seen["waiting"] or seen["refused"] or "did not start" in seen, seen
