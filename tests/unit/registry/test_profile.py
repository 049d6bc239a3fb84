"""How registries take uploads: the table, what overrides it, what is learned and when it ends."""

from dataclasses import replace

import pytest

from kitd.registry.profile import (
    MIB,
    PROFILES,
    ChunksUnsupported,
    LeastChunk,
    Lessons,
    TooLarge,
    UploadProfile,
    learn,
    lessons_of,
    profile_for,
)
from kitd.registry.settings import RegistrySettings, UploadMode

AUTO, WHOLE, CHUNKED = UploadMode.AUTO, UploadMode.MONOLITHIC, UploadMode.CHUNKED
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("registry", "size", "mode", "chunk_bytes"),
    [
        ("ghcr.io", 500 * MIB, CHUNKED, 4 * MIB),
        ("GHCR.io", 500 * MIB, CHUNKED, 4 * MIB),
        ("ghcr.io", 50 * MIB, WHOLE, 4 * MIB),
        ("europe-docker.pkg.dev", 500 * MIB, WHOLE, None),
        ("eu.gcr.io", 500 * MIB, WHOLE, None),
        ("gcr.io", 500 * MIB, WHOLE, None),
        (ECR, 500 * MIB, CHUNKED, 10 * MIB),
        (f"{ECR}.cn", 500 * MIB, CHUNKED, 10 * MIB),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", 500 * MIB, CHUNKED, 10 * MIB),
        ("public.ecr.aws", 500 * MIB, CHUNKED, 10 * MIB),
        ("docker.io", 500 * MIB, CHUNKED, 64 * MIB),
        ("quay.io", 500 * MIB, CHUNKED, 64 * MIB),
        ("team.azurecr.io", 500 * MIB, CHUNKED, 16 * MIB),
        ("notgcr.io", 500 * MIB, CHUNKED, 64 * MIB),
        ("registry.example.com:5000", 64 * MIB + 1, CHUNKED, 64 * MIB),
        ("registry.example.com:5000", 64 * MIB, WHOLE, 64 * MIB),
        ("127.0.0.1:5000", 0, WHOLE, 64 * MIB),
    ],
)
def test_the_host_and_the_size_decide_how_a_blob_is_uploaded(registry, size, mode, chunk_bytes):
    profile = profile_for(registry, RegistrySettings())
    assert profile.mode_for(size) is mode
    assert chunk_bytes in (None, profile.chunk_bytes)


@pytest.mark.parametrize(
    ("registry", "max_blob_bytes"),
    [
        (ECR, 52_000 * MIB),
        ("public.ecr.aws", 10_000 * MIB),
        ("ghcr.io", None),
        ("registry.example.com", None),
    ],
)
def test_it_is_known_who_takes_no_blob_of_any_size(registry, max_blob_bytes):
    assert profile_for(registry, RegistrySettings()).max_blob_bytes == max_blob_bytes


def test_every_row_of_the_table_agrees_with_itself():
    for _, profile in PROFILES:
        assert profile.mode is AUTO
        assert profile.least_bytes <= profile.chunk_bytes
    assert PROFILES[-1][0] == "*"


def test_no_request_is_larger_than_what_common_proxies_take():
    profile = profile_for("registry.example.com", RegistrySettings())
    assert max(profile.chunk_bytes, profile.whole_bytes) < 100_000_000


@pytest.mark.parametrize("mode", [WHOLE, CHUNKED, UploadMode.STREAM])
def test_the_configuration_beats_what_is_known_of_a_host(mode):
    settings = RegistrySettings(upload_mode=mode, chunk_bytes=6 * MIB)
    profile = profile_for("ghcr.io", settings)
    assert [profile.mode_for(size) for size in (1, 500 * MIB)] == [mode, mode]
    assert profile.chunk_bytes == 6 * MIB


def test_a_size_of_chunk_bounds_single_requests_too():
    profile = profile_for("r.example.com", RegistrySettings(chunk_bytes=4 * MIB))
    assert profile.mode_for(4 * MIB) is WHOLE
    assert profile.mode_for(4 * MIB + 1) is CHUNKED


def test_lessons_beat_the_table():
    lessons = Lessons(takes_chunks=False, chunk_bytes=MIB, refused_bytes=None)
    profile = profile_for("registry.example.com", RegistrySettings(), lessons)
    assert profile.mode_for(500 * MIB) is WHOLE
    assert lessons_of(profile) == lessons


@pytest.mark.parametrize(
    ("settings", "mode", "chunk_bytes"),
    [
        (RegistrySettings(upload_mode=CHUNKED), CHUNKED, 64 * MIB),
        (RegistrySettings(upload_mode=CHUNKED, chunk_bytes=8 * MIB), CHUNKED, 8 * MIB),
        (RegistrySettings(chunk_bytes=8 * MIB), WHOLE, 8 * MIB),
    ],
)
def test_the_configuration_beats_lessons(settings, mode, chunk_bytes):
    lessons = Lessons(takes_chunks=False, chunk_bytes=MIB, refused_bytes=None)
    profile = profile_for("registry.example.com", settings, lessons)
    assert profile.mode_for(500 * MIB) is mode
    assert profile.chunk_bytes == chunk_bytes


def test_a_chunk_that_is_too_large_is_halved_down_to_the_least():
    profile, tried = UploadProfile(), []
    while profile is not None:
        tried.append(profile.chunk_bytes)
        profile = learn(profile, TooLarge(profile.chunk_bytes, CHUNKED))
    assert tried == [64 * MIB >> step for step in range(8)]
    assert tried[-1] == UploadProfile().least_bytes


def test_it_is_what_was_refused_that_is_halved():
    """The last chunk of a blob may be smaller than the others."""
    profile = learn(UploadProfile(), TooLarge(6 * MIB, CHUNKED))
    assert profile.chunk_bytes == 3 * MIB


def test_a_blob_that_is_too_large_for_one_request_goes_in_chunks_and_smaller_ones_do_not():
    profile = learn(UploadProfile(), TooLarge(40 * MIB, WHOLE))
    assert profile.mode_for(40 * MIB) is CHUNKED
    assert profile.mode_for(40 * MIB - 1) is WHOLE
    assert profile.chunk_bytes == 20 * MIB
    smaller = learn(profile, TooLarge(30 * MIB, WHOLE))
    assert smaller.mode_for(30 * MIB) is CHUNKED


def test_who_knows_no_chunks_gets_blobs_whole():
    profile = learn(UploadProfile(), ChunksUnsupported())
    assert profile.mode_for(500 * MIB) is WHOLE


@pytest.mark.parametrize(
    ("profile", "observation"),
    [
        (UploadProfile(takes_chunks=False), TooLarge(MIB, WHOLE)),
        (UploadProfile(takes_chunks=False), ChunksUnsupported()),
        (UploadProfile(refused_bytes=MIB), ChunksUnsupported()),
        (UploadProfile(), TooLarge(MIB // 2, WHOLE)),
        (UploadProfile(mode=WHOLE), TooLarge(500 * MIB, WHOLE)),
        (UploadProfile(mode=CHUNKED), ChunksUnsupported()),
        (UploadProfile(mode=UploadMode.STREAM), ChunksUnsupported()),
        (UploadProfile(mode=UploadMode.STREAM), TooLarge(500 * MIB, UploadMode.STREAM)),
    ],
)
def test_what_leaves_nothing_to_try_teaches_nothing(profile, observation):
    assert learn(profile, observation) is None


@pytest.mark.parametrize(
    ("least", "chunk_bytes"), [(1, 64 * MIB), (64 * MIB, 64 * MIB), (80 * MIB, 80 * MIB)]
)
def test_no_chunk_is_smaller_than_the_registry_asks_for(least, chunk_bytes):
    profile = learn(UploadProfile(), LeastChunk(least))
    assert profile.chunk_bytes == chunk_bytes
    assert (
        learn(
            replace(profile, chunk_bytes=max(least, profile.least_bytes)), TooLarge(least, CHUNKED)
        )
        is None
    )
