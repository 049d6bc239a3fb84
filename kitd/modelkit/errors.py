"""What can be wrong with a project's own files: its Kitfile, its .kitignore, its kit."""

from kitd.errors import KitdError


class KitfileError(KitdError):
    """A Kitfile cannot be read or packed.

    `problems` lists everything that was found, one line each, without the file's name.
    """

    code = "invalid_kitfile"

    def __init__(self, message: str, *, problems: tuple[str, ...], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class UnsupportedKitError(KitdError):
    """The Kitfile is valid, but kitd cannot pack what it asks for."""

    code = "unsupported_kit"


class KitignoreError(KitdError):
    """A line of a .kitignore is not a pattern."""

    code = "invalid_kitignore"


class InvalidConfigError(KitdError):
    """The bytes are not the config of a ModelKit."""

    code = "invalid_modelkit_config"


class KitMismatchError(InvalidConfigError):
    """A kit's manifest and its config are not about the same kit, or the same layers."""

    code = "kit_mismatch"


class InvalidLayerTypeError(KitdError):
    """The media type is not that of a ModelKit or ModelPack layer."""

    code = "invalid_layer_type"


class InvalidFilterError(KitdError):
    """The text is not a filter."""

    code = "invalid_filter"
