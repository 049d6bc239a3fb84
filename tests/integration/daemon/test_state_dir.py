"""The directories of a daemon are its own."""

import pytest

from kitd.daemon.state_dir import StateDirError, locked_cache_dir, locked_state_dir


@pytest.mark.parametrize(
    ("locked", "what"), [(locked_state_dir, "state_dir"), (locked_cache_dir, "cache.dir")]
)
def test_a_directory_in_use_is_refused_with_what_to_do(tmp_path, locked, what):
    with locked(tmp_path / "kitd"):
        with (
            pytest.raises(StateDirError, match="another kitd") as caught,
            locked(tmp_path / "kitd"),
        ):
            pass
        assert f"set {what}" in caught.value.hint
    with locked(tmp_path / "kitd"):
        pass


def test_state_and_cache_may_be_one_directory(tmp_path):
    with locked_state_dir(tmp_path), locked_cache_dir(tmp_path):
        pass
