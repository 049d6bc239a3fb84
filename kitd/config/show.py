"""The effective configuration as a plain tree, in the words of the file. Pure.

What is shown can be parsed again and means the same, but for the URLs of endpoints, which lose what
follows their host. There is nothing else to redact: a secret is never a value of the configuration,
only the file that holds it is.
"""

import dataclasses
import enum
from collections.abc import Mapping

from kitd.config.model import Config, FileMode, key_of
from kitd.config.quantity import format_duration, format_size
from kitd.mirror.schedule import Interval
from kitd.oci.json_reader import Json


def show_config(config: Config) -> Mapping[str, Json]:
    """Return what is in force, defaults and places included."""
    placed = dataclasses.replace(config.cache, dir=config.cache_dir)
    return show_section(dataclasses.replace(config, cache=placed))


def show_section(section: object) -> Mapping[str, Json]:
    """Return a dataclass of `model` as keys and values of the file."""
    assert dataclasses.is_dataclass(section)
    names = [field.name for field in dataclasses.fields(section)]
    return {key_of(name): _show(name, getattr(section, name)) for name in names}


def _show(name: str, value: object) -> Json:
    match value:
        case None | bool():
            return value
        case enum.Enum() | FileMode():
            return str(value)
        case Interval(every_s=every_s):
            return format_duration(every_s)
        case float() if name.endswith("_s"):
            return format_duration(value)
        case int() if name.endswith("_bytes"):
            return format_size(value)
        case int():
            return value
        case Mapping():
            return {str(key): _show(name, item) for key, item in value.items()}
        case tuple():
            return [_show(name, item) for item in value]
    # Sections have no text of their own; references, addresses and templates do.
    is_section = dataclasses.is_dataclass(value) and "__str__" not in vars(type(value))
    return show_section(value) if is_section else str(value)
