"""A registry's list of tags, or of repositories: one page of it.

Source: OCI distribution spec, "Listing Tags". Artifact Registry and ACR's compatible lists also say
which manifest each tag names (`manifest`), which saves whoever wants to know a request a tag.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kitd.errors import KitdError
from kitd.oci.digest import Digest, InvalidDigestError, parse_digest
from kitd.oci.json_reader import InvalidJsonError, Json, read_object
from kitd.oci.reference import InvalidReferenceError, check_tag, parse_repository

MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_NAMES_A_PAGE = 100_000
"""Some registries list all they have on one page, whatever was asked for."""


class InvalidListError(KitdError):
    """The answer is not a list of names."""

    code = "invalid_list"


@dataclass(frozen=True, slots=True)
class ListedTag:
    """A tag, and the manifest that it names if the list says so."""

    name: str
    digest: Digest | None = None


def parse_tags(body: bytes) -> Sequence[ListedTag]:
    """Return the tags of a page. Raises `InvalidListError`."""
    document = _read(body)
    digests = _digests(document.get("manifest"))
    try:
        names = [check_tag(name) for name in _names(document, "tags")]
    except InvalidReferenceError as error:
        raise InvalidListError(str(error)) from error
    return [ListedTag(name, digests.get(name)) for name in names]


def parse_repositories(body: bytes) -> Sequence[str]:
    """Return the names of a page of `_catalog`; what is no name is left out.

    Raises `InvalidListError`.
    """
    return [name for name in _names(_read(body), "repositories") if _is_repository(name)]


def _read(body: bytes) -> Mapping[str, Json]:
    try:
        return read_object(body, max_bytes=MAX_PAGE_BYTES)
    except InvalidJsonError as error:
        raise InvalidListError(str(error)) from error


def _names(document: Mapping[str, Json], key: str) -> Sequence[str]:
    listed = document.get(key)
    # A repository whose manifests have no tags is listed as null by some.
    names = [] if listed is None else listed
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise InvalidListError(f"the {key} are not a list")
    if len(names) > MAX_NAMES_A_PAGE:
        raise InvalidListError(f"a page has more than {MAX_NAMES_A_PAGE} {key}")
    return [name if isinstance(name, str) else "" for name in names]


def _is_repository(name: str) -> bool:
    try:
        # A registry in front keeps the first component from being read as one.
        parse_repository(f"registry.example.com/{name}")
    except InvalidReferenceError:
        return False
    return True


def _digests(manifests: Json) -> Mapping[str, Digest]:
    """Return what each tag names; of what makes no sense nothing is believed."""
    found: dict[str, Digest] = {}
    if not isinstance(manifests, Mapping):
        return found
    for text, described in manifests.items():
        tags = described.get("tag") if isinstance(described, Mapping) else None
        if isinstance(tags, str) or not isinstance(tags, Sequence):
            continue
        try:
            digest = parse_digest(text)
        except InvalidDigestError:
            continue
        found.update({tag: digest for tag in tags if isinstance(tag, str)})
    return found
