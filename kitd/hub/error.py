"""What can go wrong between kitd and a hub."""

from kitd.errors import Disposition, KitdError, NotFoundError, UnavailableError


class HubError(KitdError):
    """A hub answered what kitd can make nothing of."""

    code = "hub"


class InvalidHubError(KitdError):
    """The hub's address, or the file of its token, cannot be used."""

    code = "invalid_hub"


class HubUnavailableError(UnavailableError):
    """A hub cannot be reached, has no time, or broke off in the middle."""

    code = "hub_unavailable"


class HubDeniedError(KitdError):
    """A hub does not let kitd have a repository: it is private, or its terms are not accepted."""

    code = "hub_denied"


class HubNotFoundError(NotFoundError):
    """A hub has no such repository, revision or file."""

    code = "hub_not_found"


class InvalidHubTreeError(KitdError):
    """A hub lists what must not become files: names that lead elsewhere, clash or are too many."""

    code = "invalid_hub_tree"


class HubContentError(KitdError):
    """What a hub sent is not what it had listed: another size or another hash."""

    code = "hub_content"
    disposition = Disposition.RETRY
