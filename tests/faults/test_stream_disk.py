"""A layer that is larger than the disk of the state goes to the registry and back all the same.

`KITD_SOAK_STREAM_BYTES` and `KITD_SOAK_STREAM_DISK` are the sizes of the layer and of the disk.
"""

import os
from pathlib import Path

import pytest

MIB = 1 << 20
LAYER_BYTES = int(os.environ.get("KITD_SOAK_STREAM_BYTES", 256 * MIB))
DISK = os.environ.get("KITD_SOAK_STREAM_DISK", "64m")


@pytest.mark.slow
@pytest.mark.timeout(60 + LAYER_BYTES // (4 * MIB))
def test_a_layer_larger_than_the_disk_is_packed_pushed_and_unpacked(
    mount_disk, run_stream_disk, docker_registry, record_property
):
    """With no more of it on the disk than a cache without it has."""
    disk: Path = mount_disk(DISK)
    seen = run_stream_disk(disk, docker_registry.host, "--layer", LAYER_BYTES)
    for name, value in seen.items():
        record_property(name, value)
    print(seen)
    assert not seen["wrong"], "\n".join(seen["wrong"])
    assert seen["free_bytes"] < LAYER_BYTES
    assert seen["pack_peak_bytes"] < 16 * MIB
    assert seen["unpack_peak_bytes"] < 16 * MIB
