"""The little that a client has to know about references; the daemon checks them. Pure."""


def split_tags(text: str) -> tuple[str, tuple[str, ...]]:
    """Return `repository[:tag[,tag...]]` as the repository and its tags."""
    # A colon after the last slash starts the tags; one before it belongs to the registry's port.
    head, colon, tail = text.rpartition(":")
    if not colon or "/" in tail:
        return text, ()
    return head, tuple(tag for tag in tail.split(",") if tag)


def has_registry(text: str) -> bool:
    """Whether a reference names a registry that a kit could be pulled from."""
    host, slash, _ = text.partition("/")
    return bool(slash) and ("." in host or ":" in host)
