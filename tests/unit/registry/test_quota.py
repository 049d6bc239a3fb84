import pytest

from kitd.registry.quota import Quota, read_quota


def quota(limit, remaining):
    given = {"RateLimit-Limit": limit, "RateLimit-Remaining": remaining}
    return read_quota({name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize(
    ("limit", "remaining", "expected"),
    [
        pytest.param("100;w=21600", "76;w=21600", Quota(100, 76, 21600.0), id="Docker Hub's"),
        pytest.param("100;w=21600", "0;w=21600", Quota(100, 0, 21600.0), id="used up"),
        pytest.param("100;w=21600", "76", Quota(100, 76, 21600.0), id="one window is enough"),
        pytest.param(" 100;w=21600 ", "\t76", Quota(100, 76, 21600.0), id="space around"),
        pytest.param(
            "100;w=21600;comment=x, 5;w=1", "76", Quota(100, 76, 21600.0), id="more after it"
        ),
        pytest.param("100;w=3600", "200;w=3600", Quota(100, 200, 3600.0), id="more than all"),
        pytest.param(
            "999999999;w=9999999", "1", Quota(999_999_999, 1, 9_999_999.0), id="the most there is"
        ),
    ],
)
def test_a_quota_is_read(limit, remaining, expected):
    assert quota(limit, remaining) == expected


@pytest.mark.parametrize(
    ("limit", "remaining"),
    [
        pytest.param(None, None, id="a registry without a limit"),
        pytest.param("100;w=21600", None, id="nothing of what is left"),
        pytest.param(None, "76;w=21600", id="nothing of the limit"),
        pytest.param("100", "76", id="no window"),
        pytest.param("100, 100;w=21600", "76", id="a window that is not the first's"),
        pytest.param("0;w=21600", "0;w=21600", id="none at all"),
        *(
            pytest.param(odd, "76;w=21600", id=f"limit {odd[:20]!r}")
            for odd in (
                *("", "-1;w=1", "1e3;w=1", "1.5;w=1", "all;w=1", "100;w=", "100;w=-1", "100 w=1"),
                *("1000000000;w=1", "100;w=12345678", "٣;w=1", "9" * 100_000, "100\n;w=1"),
            )
        ),
        *(
            pytest.param("100;w=21600", odd, id=f"remaining {odd!r}")
            for odd in ("", "-1", "1e3", "many", "1000000000", "0x10", "7 6")
        ),
    ],
)
def test_what_cannot_be_read_is_no_quota(limit, remaining):
    assert quota(limit, remaining) is None
