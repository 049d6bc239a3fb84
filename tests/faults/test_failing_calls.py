"""The disk fails at any one call that changes a file: nothing acknowledged is lost by it."""

import os

import pytest

CALLS_S = float(os.environ.get("KITD_SOAK_CALLS_S", "13"))
STEP = int(os.environ.get("KITD_SOAK_CALLS_STEP", "97"))
FIRST = int(os.environ.get("KITD_SOAK_SEED", "1"))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mode", ["eio", "enospc", "full"])
def test_whichever_call_fails_all_that_was_acknowledged_is_done_in_the_end(
    mode, fail_calls, start_docker_registry, capsys
):
    """A failed fsync ends kitd with 74; a full disk makes it wait, and costs no attempt."""
    hosts = [start_docker_registry().host for _ in range(2)]
    found = fail_calls(
        *hosts,
        *("--mode", mode, "--first", FIRST, "--step", STEP, "--seconds", CALLS_S),
        timeout_s=CALLS_S + 120,
    )
    with capsys.disabled():
        print(
            f"\n{mode}: {found['lives']} lives in {found['seconds']:.0f} s, the last n was"
            f" {found['last']}{', reached by none' if found['complete'] else ''}"
        )
    assert not found["wrong"], "\n".join(found["wrong"])
    # The test must have had something to break.
    assert found["hits"], found
