"""Where repositories are copied from and to; which of their tags, and when, is said elsewhere.

A route carries one repository, or with globs those below a prefix: `host`, or `host/path`. A target
is a repository or prefix too, which is extended by the path below the source's prefix, or a
template with `{path}`, that path, or `{name}`, its last component. Of a single repository the path
is its whole name, and a target without a template is where it goes.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from kitd.errors import KitdError
from kitd.mirror.order import TargetOrder
from kitd.oci.reference import (
    InvalidReferenceError,
    Repository,
    canonical_registry,
    check_tag,
    parse_repository,
)
from kitd.oci.repository_glob import RepositoryGlob, canonical, parse_repository_glob

TAG = "{tag}"
"""What stands for the source's tag in a template of tags; as a template: the same tag."""
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_STARS = re.compile(r"\*+")
_ANY_NAME = "x"
_ANY_HOST = "x.x"


class InvalidTargetError(KitdError):
    """The text is not a target of a mirror, or not a template of its tags."""

    code: ClassVar[str] = "invalid_target"


@dataclass(frozen=True, slots=True)
class Route:
    """The repositories that a rule carries, and where to. Its texts were checked."""

    source: str
    repositories: tuple[str, ...]
    """Globs below the source, as of `RepositoryGlob`; none where the source is the repository."""
    targets: tuple[TargetOrder, ...]
    """`repository` is a target as above, `tag` a template with `{tag}`."""

    @property
    def globs(self) -> tuple[RepositoryGlob, ...]:
        """Return whole globs of the repositories that are carried."""
        below = [f"{self.source}/{glob}" for glob in self.repositories]
        return tuple(RepositoryGlob(text) for text in below or [self.source])

    def carries(self, repository: Repository) -> bool:
        """Whether a repository is among those that are copied."""
        return any(glob.matches(repository) for glob in self.globs)

    def reads(self, registry: str) -> bool:
        """Whether the repositories that are copied are in this registry."""
        source, _, _ = self.source.partition("/")
        return canonical_registry(source) == canonical_registry(registry)

    def examples(self) -> tuple[Repository, ...]:
        """Return a repository for each glob, with `x` for what may be anything."""
        return tuple(parse_repository(_STARS.sub(_ANY_NAME, glob.text)) for glob in self.globs)

    def literal_repositories(self) -> tuple[Repository, ...] | None:
        """Return all repositories that are carried; None where a registry's catalog must tell."""
        if not all(glob.is_literal for glob in self.globs):
            return None
        return tuple(dict.fromkeys(self.examples()))

    def targets_of(self, repository: Repository) -> tuple[TargetOrder, ...]:
        """Return where a repository that is carried goes, each with its template of tags.

        The only thing that can be wrong with such a name is that it is longer than registries take.
        """
        return tuple(
            TargetOrder(repository=self._end(target, repository), tag=target.tag)
            for target in self.targets
        )

    def leads_to(self, source: Repository, target: Repository) -> bool:
        """Whether it carries one repository to the other."""
        return self.carries(source) and any(
            canonical(end) == canonical(target) for _, end in self.ends(source)
        )

    def ends(self, repository: Repository) -> Iterator[tuple[int, Repository]]:
        """Return where a repository goes, with the target's position, but for names too long."""
        for index, target in enumerate(self.targets):
            with contextlib.suppress(InvalidReferenceError):
                yield index, parse_repository(self._end(target, repository))

    def _end(self, target: TargetOrder, repository: Repository) -> str:
        path = self._path(repository)
        if "{" in target.repository:
            name = path.rpartition("/")[2]
            return target.repository.replace("{path}", path).replace("{name}", name)
        return f"{target.repository}/{path}" if self.repositories else target.repository

    def _path(self, repository: Repository) -> str:
        _, _, prefix = self.source.partition("/")
        is_below = bool(self.repositories and prefix)
        return repository.name.removeprefix(f"{prefix}/") if is_below else repository.name


def parse_target(text: str) -> str:
    """Return a target: a repository, `host`, or one of them with placeholders in the path.

    Its registry has its canonical spelling.
    Raises `InvalidTargetError` or `InvalidReferenceError`.
    """
    host, slash, path = text.partition("/")
    unknown = [name for name in _PLACEHOLDER.findall(path) if name not in {"path", "name"}]
    bare = _PLACEHOLDER.sub(_ANY_NAME, path)
    if unknown or re.search(r"[{}]", host + bare):
        raise InvalidTargetError(
            f"{text[:80]!r} is not a target", hint="{path} and {name} stand for parts of a path"
        )
    example = parse_repository(f"{host}/{bare if slash else _ANY_NAME}")
    if example.registry != canonical_registry(host) or example.is_local:
        raise InvalidReferenceError(
            f"{text[:80]!r} names no registry", hint="write it like registry.example.com/team/model"
        )
    return f"{example.registry}{slash}{path}"


def parse_repository_part(text: str) -> str:
    """Return a glob of repositories below a prefix. Raises `InvalidReferenceError`."""
    try:
        parse_repository_glob(f"{_ANY_HOST}/{text}")
        # Each star may be any name, so that the rest has to be part of one.
        parse_repository(f"{_ANY_HOST}/{_STARS.sub(_ANY_NAME, text)}")
    except InvalidReferenceError as error:
        raise InvalidReferenceError(
            f"{text[:80]!r} is not a glob of repositories below a prefix",
            hint="write it like bert-* or team/**",
        ) from error
    return text


def parse_tag_target(text: str) -> str:
    """Return a template of tags: text around `{tag}`. Raises a `KitdError`."""
    if text.count(TAG) != 1:
        raise InvalidTargetError(
            f"{text[:80]!r} must have {TAG} once", hint=f"write it like stable-{TAG}"
        )
    check_tag(expand_tag(text, _ANY_NAME))
    return text


def expand_tag(template: str, tag: str) -> str:
    """Return the target's tag for a source's; it may be longer than 128 characters."""
    return template.replace(TAG, tag)
