import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping

import pytest

from kitd.config import model
from kitd.config.parse import parse_config
from kitd.config.places import Place, Places


@pytest.fixture
def places() -> Places:
    return Places(
        config=Place("/home/ada/.config/kitd/kitd.yaml", is_explicit=False),
        state_dir=Place("/home/ada/.local/state/kitd", is_explicit=False),
        socket=Place("/run/user/1000/kitd/kitd.sock", is_explicit=False),
        home="/home/ada",
    )


@pytest.fixture
def parse(places: Places) -> Callable[[str], model.Config]:
    """Parses YAML text as the file `kitd.yaml`."""
    return lambda text: parse_config(text.encode(), source="kitd.yaml", places=places)


def _is_section(kind: object) -> bool:
    return dataclasses.is_dataclass(kind) and kind.__module__ == model.__name__


def _options(section: type, prefix: str) -> Iterator[tuple[str, bool]]:
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        key = prefix + model.key_of(field.name)
        hint = hints[field.name]
        forms = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        below = [option for form in forms for option in _below(form, key)]
        if not _is_section(hint) and typing.get_origin(hint) is not Mapping:
            yield key, field.default is not dataclasses.MISSING
        yield from below


def _below(form: object, key: str) -> Iterator[tuple[str, bool]]:
    arguments = typing.get_args(form)
    if _is_section(form):
        yield from _options(form, f"{key}.")
    elif typing.get_origin(form) is Mapping:
        name = "<host>" if key == "registries" else "<name>"
        yield from _options(arguments[1], f"{key}.{name}.")
    elif typing.get_origin(form) is tuple and _is_section(arguments[0]):
        yield from _options(arguments[0], f"{key}[].")


@pytest.fixture(scope="session")
def options() -> dict[str, bool]:
    """Every option of the dataclasses by its dotted key, and whether it has a default."""
    return dict(_options(model.Config, ""))
