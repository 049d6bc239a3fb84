from pathlib import Path

import pytest

from kitd.config.load import load_config
from kitd.config.model import LogLevel
from kitd.config.places import Place, Places
from kitd.config.problem import ConfigError


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(
        config=Place(str(tmp_path / "kitd.yaml"), is_explicit=False),
        state_dir=Place(str(tmp_path / "state"), is_explicit=False),
        socket=Place(str(tmp_path / "kitd.sock"), is_explicit=False),
        home=str(tmp_path),
    )


def explicit(places: Places) -> Places:
    return places._replace(config=places.config._replace(is_explicit=True))


def test_the_file_is_read_and_named(places: Places) -> None:
    Path(places.config.path).write_text("log: {level: debug}\n")
    Path(places.config.path).chmod(0o644)
    loaded = load_config(places)
    assert loaded.config.log.level is LogLevel.DEBUG
    assert loaded.path == Path(places.config.path)
    assert loaded.warnings == ()


def test_a_missing_file_in_the_default_place_is_the_defaults(places: Places) -> None:
    loaded = load_config(places)
    assert loaded.path is None
    assert loaded.config.projects == {}
    assert loaded.config.state_dir == Path(places.state_dir.path)


def test_a_missing_file_that_was_asked_for_is_an_error(places: Places) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(explicit(places))
    assert caught.value.message == f"{Path(places.config.path)}: cannot be read: no such file"


@pytest.mark.parametrize("is_explicit", [True, False])
def test_a_file_that_cannot_be_read_is_an_error(places: Places, is_explicit: bool) -> None:
    Path(places.config.path).mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(explicit(places) if is_explicit else places)


def test_problems_name_the_file(places: Places) -> None:
    Path(places.config.path).write_text("logs: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(places)
    path = Path(places.config.path)
    assert caught.value.lines == (f"{path}:1:1: logs: unknown key (did you mean 'log'?)",)


def test_an_endless_file_is_read_up_to_the_bound(places: Places) -> None:
    endless = places._replace(config=Place("/dev/zero", is_explicit=True))
    with pytest.raises(ConfigError, match="larger than 1024 KiB"):
        load_config(endless)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_can_change_is_warned_about(places: Places, mode: int) -> None:
    Path(places.config.path).touch()
    Path(places.config.path).chmod(mode)
    (warning,) = load_config(places).warnings
    assert f"chmod go-w {Path(places.config.path)}" in warning
