"""Reads the configuration file. Blocks: the event loop goes through `kitd.blocking`."""

import os
import stat
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from kitd.config.model import Config
from kitd.config.parse import parse_config
from kitd.config.places import Places
from kitd.config.problem import MAX_PROBLEMS, ConfigError, ConfigProblem
from kitd.config.tree import MAX_BYTES
from kitd.config.warning import find_warnings


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, the file it came from (None: there is none), and what to warn about."""

    config: Config
    path: Path | None
    warnings: tuple[str, ...] = ()


def load_config(places: Places) -> Loaded:
    """Read and parse the file at `places.config`.

    A missing file gives the defaults, unless a flag or a variable named it. Raises `ConfigError`.
    """
    path = Path(places.config.path)
    try:
        content, mode = _read(path)
    except FileNotFoundError as error:
        if places.config.is_explicit:
            raise _unreadable(path, "no such file", "check --config and KITD_CONFIG") from error
        return Loaded(parse_config(b"", source=str(path), places=places), None)
    except OSError as error:
        raise _unreadable(
            path, error.strerror or str(error), "the user that runs kitd must be able to read it"
        ) from error
    warnings = []
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        warnings.append(f"{path} can be changed by others than its owner: run chmod go-w {path}")
    config = parse_config(content, source=str(path), places=places)
    return Loaded(config, path, (*warnings, *islice(find_warnings(config), MAX_PROBLEMS)))


def _read(path: Path) -> tuple[bytes, int]:
    """Return the content, one byte more than allowed at most, and the mode of the file."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1), os.fstat(file.fileno()).st_mode


def _unreadable(path: Path, reason: str, hint: str) -> ConfigError:
    return ConfigError(str(path), [ConfigProblem(None, (), f"cannot be read: {reason}", hint)])
