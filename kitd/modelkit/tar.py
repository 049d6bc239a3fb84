"""Tar headers, byte for byte as `kit` (Go's archive/tar) writes them.

USTAR where it fits, else PAX: an extended header with the record, then the main header. Only the
permission bits vary with the host; owner is 1000:0 and time the epoch. The standard library's
`tarfile` writes other bytes (it splits prefixes elsewhere, leaves device numbers empty and pads to
10 KiB), so it is not used. Sources: POSIX.1-2017 pax, sections "ustar Interchange Format" and "pax
Extended Header"; the digests under `tests/golden` decide.

A name that is not UTF-8 goes into the PAX record as the bytes it is, which GNU tar, bsdtar and
Python's `tarfile` read back unchanged.
"""

BLOCK = 512
TRAILER = bytes(2 * BLOCK)
"""What ends an archive; nothing is padded further."""

_NAME_BYTES = 100
_PREFIX_BYTES = 155
_MAX_USTAR_SIZE = 0o77777777777
_PERMISSIONS = 0o7777

_OWNER = b"0001750\x000000000\x00"
_MTIME = b"00000000000\x00"
_MAGIC = b"ustar\x0000"
_AFTER_TYPE = bytes(100) + _MAGIC + bytes(64)
_DEVICES = b"0000000\x000000000\x00"
_PADS = tuple(bytes(size) for size in range(_NAME_BYTES + 1))
_TAILS = {is_dir: (b"5" if is_dir else b"0") + _AFTER_TYPE + _DEVICES for is_dir in (False, True)}
_NO_PREFIX = bytes(BLOCK - 345)
_HIGH_BYTES = bytes(range(0x80, 0x100))
# While it is summed, the checksum field counts as eight spaces.
_FIXED_SUM = sum(_OWNER) + sum(_MTIME) + 8 * ord(" ")
_TAIL_SUMS = {is_dir: _FIXED_SUM + sum(tail) for is_dir, tail in _TAILS.items()}

# Of an extended header Go fills in neither permissions nor devices.
_PAX_OWNER = b"0000000\x000000000\x000000000\x00"
_PAX_TAIL = b"x" + _AFTER_TYPE + bytes(16) + _NO_PREFIX
_PAX_SUM = sum(_PAX_OWNER) + sum(_MTIME) + sum(_PAX_TAIL) + 8 * ord(" ")


def header(path: bytes, mode: int, size: int, *, is_dir: bool) -> bytes:
    """Return the blocks that stand before an entry's content.

    `path` is relative, without a slash at its end; `mode` may be a whole `st_mode`, of which the
    permission and the set-id and sticky bits are kept; `size` is in bytes, 0 for a directory.
    """
    if len(path) <= _NAME_BYTES and path.isascii() and size <= _MAX_USTAR_SIZE:
        return _block(path, b"", mode, size, is_dir=is_dir)
    if path.isascii() and size <= _MAX_USTAR_SIZE and (split := _split(path)):
        prefix, name = split
        return _block(name, prefix, mode, size, is_dir=is_dir)
    return _pax(path, mode, size, is_dir=is_dir)


def padding(size: int) -> bytes:
    """Return what fills up the last block of `size` bytes of content."""
    return bytes(-size % BLOCK)


def _block(name: bytes, prefix: bytes, mode: int, size: int, *, is_dir: bool) -> bytes:
    permissions = b"%07o" % (mode & _PERMISSIONS)
    length = b"%011o" % size
    checksum = sum(name) + sum(prefix) + sum(permissions) + sum(length) + _TAIL_SUMS[is_dir]
    return b"".join(
        (
            name,
            _PADS[_NAME_BYTES - len(name)],
            permissions,
            b"\0",
            _OWNER,
            length,
            b"\0",
            _MTIME,
            b"%06o\0 " % checksum,
            _TAILS[is_dir],
            prefix + bytes(BLOCK - 345 - len(prefix)) if prefix else _NO_PREFIX,
        )
    )


def _split(path: bytes) -> tuple[bytes, bytes] | None:
    """Return the USTAR prefix and name of a long path, split at the last slash that can serve."""
    slash = path.rfind(b"/", 0, _PREFIX_BYTES + 1)
    name = path[slash + 1 :]
    if slash <= 0 or not 0 < len(name) <= _NAME_BYTES:
        return None
    return path[:slash], name


def _pax(path: bytes, mode: int, size: int, *, is_dir: bool) -> bytes:
    records = b""
    if len(path) > _NAME_BYTES or not path.isascii():
        records += _record(b"path", path)
    if size > _MAX_USTAR_SIZE:
        records += _record(b"size", b"%d" % size)
        size = 0
    return b"".join(
        (
            _pax_block(path, len(records)),
            records,
            padding(len(records)),
            _block(_cut(_ascii(path)), b"", mode, size, is_dir=is_dir),
        )
    )


def _record(key: bytes, value: bytes) -> bytes:
    """Return the length, a space, `key=value` and a newline; the length counts its own digits."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d%b" % (length, rest)


def _pax_block(path: bytes, size: int) -> bytes:
    directory, _, base = path.rpartition(b"/")
    joined = b"/".join(part for part in (directory, b"PaxHeaders.0", base) if part)
    name = _ascii(joined)[:_NAME_BYTES].rstrip(b"/")
    length = b"%011o" % size
    checksum = sum(name) + sum(length) + _PAX_SUM
    return b"".join(
        (
            name,
            _PADS[_NAME_BYTES - len(name)],
            _PAX_OWNER,
            length,
            b"\0",
            _MTIME,
            b"%06o\0 " % checksum,
            _PAX_TAIL,
        )
    )


def _ascii(path: bytes) -> bytes:
    return path.translate(None, _HIGH_BYTES)


def _cut(name: bytes) -> bytes:
    """Return a name cut to its field; a slash that ends up last is blanked, as in Go."""
    if len(name) <= _NAME_BYTES:
        return name
    return name[:_NAME_BYTES].rstrip(b"/")
