"""What can go wrong between kitd and a hub, an LFS server, or a repository of git."""

from kitd.errors import Disposition, KitdError, NotFoundError, UnavailableError


class HubError(KitdError):
    """A hub or an LFS server answered what kitd can make nothing of."""

    code = "hub"


class InvalidHubError(KitdError):
    """The hub's address, or the file of its token, cannot be used."""

    code = "invalid_hub"


class HubUnavailableError(UnavailableError):
    """A hub or an LFS server cannot be reached, has no time, or broke off in the middle."""

    code = "hub_unavailable"


class HubDeniedError(KitdError):
    """A hub or an LFS server does not let kitd have it: it is private, or has terms to accept."""

    code = "hub_denied"


class HubNotFoundError(NotFoundError):
    """A hub or an LFS server has no such repository, revision or file."""

    code = "hub_not_found"


class InvalidHubTreeError(KitdError):
    """A repository has what must not become files: names that lead elsewhere, clash, are many."""

    code = "invalid_hub_tree"


class HubContentError(KitdError):
    """What was sent is not what was listed: another size or another hash."""

    code = "hub_content"
    disposition = Disposition.RETRY


class NoGitError(KitdError):
    """The machine that kitd runs on has no git."""

    code = "no_git"


class GitError(KitdError):
    """git did not do what it was asked for, and trying again is in vain."""

    code = "git"


class GitUnavailableError(UnavailableError):
    """A server of git cannot be reached, has no time, or broke off in the middle."""

    code = "git_unavailable"


class GitDeniedError(KitdError):
    """A server of git does not let kitd have a repository."""

    code = "git_denied"


class GitNotFoundError(NotFoundError):
    """There is no such repository of git, or no such revision in it."""

    code = "git_not_found"
