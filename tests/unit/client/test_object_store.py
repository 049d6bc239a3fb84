"""What is asked of an object store, and how it is signed."""

import calendar

import pytest

from kitd.client.object_store import (
    RemoteDatasetError,
    S3Object,
    Store,
    object_url,
    parse_object,
    signature,
    store_of,
)

MAY_24_2013 = calendar.timegm((2013, 5, 24, 0, 0, 0))
KEYS = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


def test_a_request_is_signed_as_in_the_documented_example():
    """Amazon S3 API Reference, "Signature Calculations", example "GET Bucket Lifecycle"."""
    store = Store(None, "us-east-1", *KEYS, None)
    headers = signature(store, "https://examplebucket.s3.amazonaws.com/?lifecycle=", MAY_24_2013)
    assert headers["x-amz-date"] == "20130524T000000Z"
    assert headers["Authorization"].endswith(
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/key", S3Object("bucket", "key", None)),
        ("s3://my.bucket/a/b c", S3Object("my.bucket", "a/b c", None)),
        ("s3://bucket/key?versionId=a%2Fb", S3Object("bucket", "key", "a/b")),
    ],
)
def test_an_object_is_read_as_kit_writes_it(url, expected):
    assert parse_object(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket",
        "s3:///key",
        "s3://bucket/",
        "s3://bucket/?versionId=1",
        "s3://bucket/key?acl",
        "s3://bucket/key?versionId=",
        "s3://evil.example.com#/key",
        "s3://user@host/key",
        "https://example.com/key",
        "registry.example.com/team/data:v1",
        "s3://bucket/" + "k" * 5000,
    ],
)
def test_what_names_no_object_is_refused(url):
    with pytest.raises(RemoteDatasetError):
        parse_object(url)


@pytest.mark.parametrize(
    ("environ", "url", "expected"),
    [
        ({}, "s3://data/a b", "https://data.s3.us-east-1.amazonaws.com/a%20b"),
        (
            {"S3_REGION": "eu-west-1"},
            "s3://da.ta/k?versionId=7",
            "https://s3.eu-west-1.amazonaws.com/da.ta/k?versionId=7",
        ),
        (
            {"S3_API_ENDPOINT": "http://127.0.0.1:9000/"},
            "s3://data/k?versionId=a/b",
            "http://127.0.0.1:9000/data/k?versionId=a%2Fb",
        ),
    ],
)
def test_an_object_is_where_the_environment_says(environ, url, expected):
    assert object_url(store_of(environ), parse_object(url)) == expected


def test_keys_are_of_one_family():
    """A key of one store is not sent with the secret of another."""
    aws = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "t"}
    assert store_of(aws)[2:] == ("a", "b", "t")
    assert store_of({**aws, "S3_ACCESS_KEY_ID": "x", "S3_SECRET_KEY": "y"})[2:] == ("x", "y", None)


@pytest.mark.parametrize(
    "environ",
    [
        {"S3_API_ENDPOINT": "s3.example.com"},
        {"S3_API_ENDPOINT": "ftp://s3.example.com"},
        {"S3_API_ENDPOINT": "https://who:secret@s3.example.com"},
        {"S3_API_ENDPOINT": "https://s3.example.com/?x=1"},
        {"S3_REGION": "eu/../x"},
    ],
)
def test_a_place_that_is_none_is_refused_without_repeating_it(environ):
    with pytest.raises(RemoteDatasetError) as caught:
        store_of(environ)
    assert "secret" not in str(caught.value)
