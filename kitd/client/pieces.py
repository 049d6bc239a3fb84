"""How many pieces a compressed layer comes in: each costs as much as inflating far more."""

from kitd.errors import KitdError

FREE_PIECES = 1000
"""So many members, frames and blocks may hold as little as they like, or nothing."""
LEAST_PIECE_BYTES = 256
"""Plain bytes that each one beyond these has to bring on average: a tar has no entry below 512."""


class TooManyPiecesError(KitdError):
    """A compressed layer is cut into pieces that hold next to nothing, and takes long to read."""

    code = "too_many_pieces"


class Pieces:
    """The count for one layer."""

    def __init__(self, digest: str) -> None:
        self._digest = digest
        self._left = FREE_PIECES
        self._plain_bytes = 0

    def begin(self) -> None:
        """Count a gzip member, or a zstd frame or block. Raises `TooManyPiecesError`."""
        if self._left == 0:
            self._left, self._plain_bytes = divmod(self._plain_bytes, LEAST_PIECE_BYTES)
        if self._left == 0:
            raise TooManyPiecesError(
                f"the layer {self._digest} is compressed in pieces that hold next to nothing",
                hint="do not unpack this kit; who packed it can do so again",
            )
        self._left -= 1

    def take(self, plain_bytes: int) -> None:
        """Note what came out of them."""
        self._plain_bytes += plain_bytes
