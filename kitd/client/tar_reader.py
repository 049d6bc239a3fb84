"""Reading the tar of a layer, strictly: files and directories, and nothing that can reach out.

Understands ustar, PAX `path` and `size` records and GNU long names. Everything else that tar can
say (links, devices, sparse files, global headers …) is refused by name, and so is every name that
does not lead down from where the archive is unpacked. Sources: POSIX.1-2017, pax "ustar Interchange
Format" and "pax Extended Header"; the GNU tar manual, "Basic Tar Format".
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kitd import errors
from kitd.errors import KitdError
from kitd.set_id import lends_rights

BLOCK_BYTES = 512
CHUNK_BYTES = 1 << 20
MAX_EXTENSION_BYTES = 1 << 20
"""Of one PAX header or long name."""
MAX_ENTRIES = 1_000_000
MAX_NAME_BYTES = 4096
MAX_DEPTH = 256
MAX_TRAILER_BYTES = 1 << 20
"""Zeros after the end of the archive, which writers use to fill a record."""

_ZEROS = bytes(BLOCK_BYTES)
_HERE = (b".", b"./")
_REGULAR = (b"0", b"\0")
_DIRECTORY, _PAX, _LONG_NAME = b"5", b"x", b"L"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a fifo",
    b"7": "a contiguous file",
    b"g": "a global PAX header",
    b"K": "a long link name",
    b"S": "a sparse file",
    b"D": "a GNU directory listing",
    b"M": "a continued file of another volume",
    b"V": "a volume label",
}


class TarError(KitdError):
    """The archive is not one, is damaged or ends early."""

    code = "damaged_archive"


class UnsafeNameError(TarError):
    """An entry has a name that leads elsewhere than down from the target, or that unpacks use."""

    code = "unsafe_name"


class UnsupportedEntryError(TarError):
    """An entry is neither a regular file nor a directory: a link, a device and so on."""

    code = "unsupported_entry"


class SetIdEntryError(UnsupportedEntryError):
    """A file of a kit would run with the rights of its owner or its group, whoever runs it."""

    code = "set_id"


class DuplicateEntryError(TarError):
    """Two entries of a kit have the same place."""

    code = "duplicate_entry"


class TooManyEntriesError(TarError):
    """A kit holds more entries than kitd unpacks, or one with a header beyond its bounds."""

    code = "too_many_entries"


class Entry(NamedTuple):
    """A file or a directory: `name` is a clean relative path, `mode` the permission bits."""

    name: bytes
    mode: int
    size: int
    is_directory: bool


class _Header(NamedTuple):
    name: bytes
    mode: int
    size: int
    kind: bytes


def printable(name: bytes) -> str:
    """Return a name as it can be shown in one line of a message."""
    return errors.printable(name[:200]) + ("…" if len(name) > 200 else "")


def clean_name(name: bytes) -> bytes:
    """Return a relative path without empty and `.` components.

    Raises `UnsafeNameError` for one that is empty, absolute, goes up, or is beyond the bounds.
    """
    problem = None
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if len(name) > MAX_NAME_BYTES:
        problem = f"has a name of more than {MAX_NAME_BYTES} bytes"
    elif b"\0" in name:
        problem = "has a name with a NUL byte"
    elif name.startswith(b"/"):
        problem = "has an absolute name"
    elif b".." in parts:
        problem = "has a name that leads out of the kit"
    elif not parts:
        problem = "has a name that names nothing"
    elif len(parts) > MAX_DEPTH:
        problem = f"lies deeper than {MAX_DEPTH} directories"
    if problem is not None:
        raise UnsafeNameError(
            f"the entry '{printable(name)}' {problem}", hint="do not unpack this kit"
        )
    return b"/".join(parts)


def require_no_set_id(name: bytes, mode: int) -> None:
    """Check the mode of a file. Raises `SetIdEntryError`."""
    if lends_rights(mode):
        raise SetIdEntryError(
            f"the entry '{printable(name)}' is a setuid or setgid file (mode {mode & 0o7777:04o})",
            hint="unpack the rest with --filter; whoever packs it has to take the bit away",
        )


class TarReader:
    """One pass over an archive. `read(n)` gives 1 to `n` bytes, and none at the end."""

    def __init__(self, read: Callable[[int], bytes], *, max_entries: int = MAX_ENTRIES) -> None:
        self._read = read
        self._max_entries = max_entries
        self._unread_bytes = 0
        self._padding_bytes = 0

    def entries(self) -> Iterator[Entry]:
        """Yield the entries in order; what was not read of a file's content is skipped.

        Reads the archive to its very end. Raises `TarError`, and what `read` raises.
        """
        count = 0
        while (block := self._block()) != _ZEROS:
            header, long_name, records = _parse_header(block), None, None
            if header.kind == _LONG_NAME:
                long_name = self._extension(header).rstrip(b"\0")
                header = _parse_header(self._block())
            elif header.kind == _PAX:
                records = _parse_pax(self._extension(header))
                header = _parse_header(self._block())
            count += 1
            if count > self._max_entries:
                raise TooManyEntriesError(
                    f"the layers hold more than {MAX_ENTRIES} entries, beyond which is"
                    f" '{printable(header.name)}'",
                    hint="unpack a part of the kit with --filter",
                )
            is_plain = not (long_name or records or header.size)
            if header.kind == _DIRECTORY and header.name in _HERE and is_plain:
                # `tar -C dir .` begins with it; where the kit is unpacked is nobody's to describe.
                continue
            entry = _entry(header, long_name, records or {})
            self._unread_bytes = entry.size
            self._padding_bytes = -entry.size % BLOCK_BYTES
            yield entry
            for _ in self.content():
                pass
            self._exactly(self._padding_bytes)
        if self._block() != _ZEROS:
            raise TarError("the archive does not end with two empty blocks")
        trailer_bytes = 0
        while chunk := self._read(CHUNK_BYTES):
            trailer_bytes += len(chunk)
            if trailer_bytes > MAX_TRAILER_BYTES or chunk.count(0) != len(chunk):
                raise TarError("the archive goes on after its end")

    def content(self) -> Iterator[bytes]:
        """Yield the content of the entry that `entries` yielded last. Raises `TarError`."""
        while self._unread_bytes:
            chunk = self._read(min(self._unread_bytes, CHUNK_BYTES))
            if not chunk:
                raise _cut_short()
            self._unread_bytes -= len(chunk)
            yield chunk

    def _exactly(self, size: int) -> bytes:
        data = self._read(size) if size else b""
        while len(data) < size:
            more = self._read(size - len(data))
            if not more:
                raise _cut_short()
            data += more
        return data

    def _block(self) -> bytes:
        return self._exactly(BLOCK_BYTES)

    def _extension(self, header: _Header) -> bytes:
        if header.size > MAX_EXTENSION_BYTES:
            raise TooManyEntriesError(
                f"the extended header of '{printable(header.name)}' has more than 1 MiB"
            )
        data = self._exactly(header.size)
        self._exactly(-header.size % BLOCK_BYTES)
        return data


def _cut_short() -> TarError:
    return TarError("the archive ends in the middle of an entry")


def _parse_header(block: bytes) -> _Header:
    name = block[:100].partition(b"\0")[0]
    posix = block[257:265] == b"ustar\x0000"
    if not posix and block[257:265] != b"ustar  \0":
        raise TarError(f"the header of '{printable(name)}' is not one of a tar archive")
    # The checksum counts its own field as spaces.
    expected = sum(block) - sum(block[148:156]) + 8 * 0x20
    if _number(block[148:156], name) != expected:
        raise TarError(f"the header of '{printable(name)}' has a wrong checksum")
    # GNU's format uses the place of the prefix for other things.
    prefix = block[345:500].partition(b"\0")[0] if posix else b""
    full_name = prefix + b"/" + name if prefix else name
    return _Header(
        full_name, _number(block[100:108], name), _number(block[124:136], name), block[156:157]
    )


def _number(field: bytes, name: bytes) -> int:
    if field[0] == 0x80:
        # GNU's way to write what eleven octal digits cannot hold.
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not all(0x30 <= digit <= 0x37 for digit in digits):
        raise TarError(f"the header of '{printable(name)}' holds a number that is none")
    return int(digits or b"0", 8)


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        length = data[position:space]
        end = position + int(length) if space > 0 and length.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1 : end] != b"\n" or not equals or not key:
            raise TarError("an extended header holds a record that cannot be read")
        if key in records:
            raise TarError(f"an extended header gives '{printable(key)}' twice")
        if key.startswith(b"GNU.sparse."):
            raise UnsupportedEntryError(
                "the archive holds a sparse file, which kitd does not unpack"
            )
        records[key] = value
        position = end
    return records


def _entry(header: _Header, long_name: bytes | None, records: dict[bytes, bytes]) -> Entry:
    name = records.get(b"path", header.name if long_name is None else long_name)
    if header.kind not in (*_REGULAR, _DIRECTORY):
        what = _REFUSED.get(header.kind, f"of the unknown type {header.kind!r}")
        if header.kind in (_PAX, _LONG_NAME):
            raise TarError(f"the entry '{printable(name)}' is a second extended header in a row")
        raise UnsupportedEntryError(
            f"the entry '{printable(name)}' is {what}, which kitd does not unpack",
            hint="kits hold regular files and directories only",
        )
    size = header.size
    if (text := records.get(b"size")) is not None:
        if not text.isdigit() or len(text) > 19:
            raise TarError(f"the size of '{printable(name)}' is not a number")
        size = int(text)
    if size >= 1 << 63:
        raise TarError(f"the size of '{printable(name)}' is not one a file can have")
    is_directory = header.kind == _DIRECTORY
    if is_directory and size:
        raise TarError(f"the directory '{printable(name)}' has content")
    if not is_directory and name.endswith(b"/"):
        raise TarError(f"the file '{printable(name)}' has the name of a directory")
    clean = clean_name(name)
    if not is_directory:
        require_no_set_id(clean, header.mode)
    return Entry(clean, header.mode & 0o777, size, is_directory)
