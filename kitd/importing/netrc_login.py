"""Who kitd is at servers of git and LFS: `~/.netrc` of its user, as curl in git reads it too."""

import netrc
from collections.abc import Mapping
from pathlib import Path

from kitd.hub.error import GitError
from kitd.secret_file import read_secret


def netrc_login(environ: Mapping[str, str], host: str) -> tuple[str, str] | None:
    """Return user and password for a host, if the file has a line for it or for all. Blocks.

    Hosts are compared as DNS does, and `default` stands for all that have no line, as for curl.

    Raises `GitError` for a file that cannot be read, of which it repeats nothing.
    """
    path = Path(environ.get("HOME", ""), ".netrc")
    try:
        if not path.is_absolute() or not path.exists():
            return None
        # No pipe that nobody writes to, and no file without an end.
        read_secret(path)
        hosts = {name.lower(): login for name, login in netrc.netrc(str(path)).hosts.items()}
    except netrc.NetrcParseError as error:
        raise GitError(
            f"line {error.lineno} of {path} cannot be read",
            hint="mend it: what kitd cannot read there it could not keep out of messages",
        ) from None
    except ValueError as error:
        raise GitError(f"{path} {error}") from error
    except OSError as error:
        raise GitError(f"{path} cannot be read: {error.strerror}") from error
    found = hosts.get(host.lower()) or hosts.get("default")
    return None if found is None else (found[0], found[2])
