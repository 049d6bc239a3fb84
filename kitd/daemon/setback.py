"""What the parts do that come back to their work anyway, when it fails once."""

import structlog

from kitd.errors import Disposition, KitdError

log = structlog.get_logger(__name__)


def note_setback(event: str, error: KitdError) -> None:
    """Log an error that may pass; raise one that kitd must not go on after."""
    if error.disposition is Disposition.FATAL:
        raise error
    log.warning(event, code=error.code, error=error.message)
