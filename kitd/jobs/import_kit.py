"""Import: files of a hub or of a git repository, fetched, described by a Kitfile and packed.

What is fetched lies in a directory of the job's under the names of its hashes, and is linked into
a tree with the names it has there right before the pack.
Whatever ends the job, the directory goes with it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from kitd.blocking import run_blocking
from kitd.content.together import all_of
from kitd.errors import KitdError
from kitd.hub.error import InvalidHubTreeError
from kitd.hub.git_source import GitSource, Source
from kitd.hub.tree import EVERYTHING, Choice, HubFile
from kitd.jobs.assembly import PackArgs, PackResult, pack
from kitd.jobs.port import Origin, Ports
from kitd.licence import MAX_LICENCE_BYTES, recognize_licence
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.generate import (
    CROWD,
    ListedDirectory,
    ListedFile,
    Listing,
    generate,
    is_licence,
)
from kitd.modelkit.ignore import KITIGNORE_NAME, MAX_KITIGNORE_BYTES
from kitd.modelkit.kitfile import KITFILE_NAMES, Kitfile, Package, layer_entries, parse_kitfile
from kitd.modelkit.path import clean_path
from kitd.modelkit.validation import require_valid
from kitd.modelkit.yaml_writer import kitfile_to_yaml
from kitd.queue.job import Lane, Progress
from kitd.queue.kind import Done, JobContext, JobKind
from kitd.queue.retry import RetryPolicy

MAX_KITFILE_CHARS = 256 << 10
"""Of one that is given: it is kept with the job."""
MAX_PATTERNS = 100


class ImportArgs(msgspec.Struct, frozen=True, kw_only=True):
    """What to import, and what its kit is called; `kitfile` is a Kitfile's text."""

    source: Source
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    kitfile: str | None
    repository: str
    tags: tuple[str, ...]
    push: bool = False
    asker: int | None = None
    """Whose wish it is: nobody's takes the place of another's."""


class ImportResult(PackResult, frozen=True, kw_only=True):
    """The kit, and where it comes from; `received` is how many bytes were fetched."""

    source: str
    revision: str
    files: int
    received: int


class NothingToImportError(KitdError):
    """A repository holds nothing, or the patterns leave nothing of it."""

    code = "nothing_to_import"


class KitfileTooLargeError(KitdError):
    """The Kitfile of a repository is larger than any that is read."""

    code = "kitfile_too_large"


class NoRoomToImportError(KitdError):
    """The disk is too small for what is to be imported, which is there twice for a while."""

    code = "no_room_to_import"


async def run(args: ImportArgs, context: JobContext, ports: Ports) -> Done:
    """Import once. Raises `KitdError`."""
    importer = ports.importer
    place = await run_blocking(importer.place, context.job.id)

    def advanced(size: int) -> None:
        context.report(Progress("downloading", size, size))

    choice = Choice(args.include, args.exclude)
    async with importer.open(args.source, place, choice, advanced) as origin:
        fetching = _Fetching(origin, place, context, ports)
        snapshot = origin.snapshot
        chosen = snapshot.files
        if not chosen:
            raise NothingToImportError(
                f"{args.source} has no files"
                + (" that the patterns leave" if choice != EVERYTHING else ""),
                hint="see --include and --exclude; * stands for any characters, also /",
            )
        ignored = await _ignored(chosen, fetching, ports)
        notes: tuple[str, ...] = ()
        text = await _own_kitfile(args, chosen, fetching)
        if text is None:
            taken = tuple(file for file in chosen if file.path not in ignored)
            kitfile, notes = await _generated(args.source, taken, fetching, ports)
        else:
            kitfile = await run_blocking(parse_kitfile, text.encode())
        await run_blocking(require_valid, kitfile, ports.settings.dialect)
        needed = await run_blocking(needed_by, kitfile, chosen, ignored)
        require_place_for_kitfile(needed)
        if not await run_blocking(importer.has_room_for, place, needed):
            size = sum(file.size for file in needed)
            raise NoRoomToImportError(
                f"the disk of the cache has no room for {size} bytes, and as many for the kit",
                hint="free space, point cache.dir at a larger disk, or choose less with --include",
            )
        await fetching.fetch(needed)
    if text is None:
        text = await run_blocking(kitfile_to_yaml, kitfile)
    tree = await run_blocking(importer.lay_out, place, needed, text)
    done = await pack(_pack_args(args, tree), context, ports)
    assert isinstance(done.result, PackResult)
    packed = msgspec.structs.asdict(done.result)
    packed["warnings"] = (*snapshot.notes, *notes, *done.result.warnings)
    result = ImportResult(
        **packed,
        source=str(args.source),
        revision=snapshot.commit,
        files=len(needed),
        received=fetching.received,
    )
    return Done(result, done.effects, done.facts)


async def _own_kitfile(
    args: ImportArgs, files: Sequence[HubFile], fetching: "_Fetching"
) -> str | None:
    """Return the Kitfile of the caller, or that of git; None where there is neither.

    Hubs hold models, and not projects: what is called so there is one of their files.
    """
    if args.kitfile is not None or not isinstance(args.source, GitSource):
        return args.kitfile
    by_name = {file.path: file for file in files}
    found = next((by_name[name] for name in KITFILE_NAMES if name in by_name), None)
    if found is None:
        return None
    if found.size > MAX_KITFILE_CHARS:
        raise KitfileTooLargeError(
            f"{found.path} has more than {MAX_KITFILE_CHARS} bytes",
            hint="give another Kitfile with -f",
        )
    return await fetching.read(found)


def _pack_args(args: ImportArgs, tree: Path) -> PackArgs:
    return PackArgs(
        project=None,
        path=str(tree),
        kitfile=KITFILE_NAMES[0],
        repository=args.repository,
        tags=args.tags,
        push=args.push,
        compression=None,
        is_guest=True,
    )


class _Fetching:
    """What one attempt fetches into its job's directory."""

    def __init__(self, origin: Origin, place: Path, context: JobContext, ports: Ports) -> None:
        self.origin = origin
        self._place = place
        self._context = context
        self._importer = ports.importer
        self._transfers = ports.transfers
        self._here: dict[str, int] = {}
        self._done = 0
        self.received = origin.received

    async def fetch(self, files: Collection[HubFile]) -> None:
        """Fetch files, several at once; equal ones once. Raises `KitdError`."""
        wanted = {file.identity: file for file in files}
        total = sum(file.size for file in wanted.values())
        waiting = list(wanted.values())
        # The largest first: the last one decides when all are there.
        waiting.sort(key=lambda file: file.size)

        async def fetch_in_turn() -> None:
            while waiting:
                await self._fetch_one(waiting.pop(), total)

        await all_of(fetch_in_turn() for _ in range(min(self._transfers, len(wanted))))

    async def _fetch_one(self, file: HubFile, total: int) -> None:
        def advanced(here: int) -> None:
            self._done += here - self._here.get(file.identity, 0)
            self._here[file.identity] = here
            self._context.report(Progress("downloading", self._done, max(total, self._done)))

        received = await self.origin.fetch(file, advanced)
        # Not in one line: others add to it while this one waits.
        self.received += received

    async def read(self, file: HubFile) -> str:
        """Return the text of a small file. Raises `KitdError`."""
        return (await self.read_bytes(file)).decode("utf-8", "replace")

    async def read_bytes(self, file: HubFile) -> bytes:
        """Return the content of a small file. Raises `KitdError`."""
        await self.fetch([file])
        return await run_blocking(self._importer.read, self._place, file)


async def _ignored(files: Sequence[HubFile], fetching: _Fetching, ports: Ports) -> frozenset[str]:
    """Return which files the .kitignore among them leaves out. Raises `KitdError`."""
    rules = next((file for file in files if file.path == KITIGNORE_NAME), None)
    if rules is None:
        return frozenset()
    if rules.size > MAX_KITIGNORE_BYTES:
        raise InvalidHubTreeError(
            f"{KITIGNORE_NAME} has more than {MAX_KITIGNORE_BYTES} bytes",
            hint=f"leave it out with --exclude {KITIGNORE_NAME}",
        )
    content = await fetching.read_bytes(rules)
    return await ports.importer.ignored(content, [file.path for file in files])


async def _generated(
    source: Source, files: Sequence[HubFile], fetching: _Fetching, ports: Ports
) -> tuple[Kitfile, tuple[str, ...]]:
    """Return a Kitfile for what was chosen, and what is to be said about it."""
    licence = ""
    for file in sorted(files, key=lambda file: file.path):
        is_text = "/" not in file.path and is_licence(file.path)
        if is_text and not licence and file.size <= MAX_LICENCE_BYTES:
            text = await fetching.read(file)
            licence = await run_blocking(recognize_licence, text)
    licence = licence or fetching.origin.snapshot.licence
    return await run_blocking(draft_for, source, files, licence, ports.settings.dialect)


def draft_for(
    source: Source, files: Sequence[HubFile], licence: str, dialect: Dialect
) -> tuple[Kitfile, tuple[str, ...]]:
    """Return a Kitfile for files, named after where they come from, and notes.

    Raises `InvalidHubTreeError` where so many files are in the root that it would be none to read.
    """
    owner, _, name = source.repository.rpartition("/")
    owner = owner.rpartition("/")[2]
    package = Package(name=name, authors=(owner,) if owner else ())
    listing = listing_of(files)
    if len(listing.files) > CROWD:
        raise InvalidHubTreeError(
            f"{source} holds {len(listing.files)} files in its root, which is more than a Kitfile"
            " should name",
            hint="give a Kitfile with -f, or choose some files with --include",
        )
    draft = generate(listing, package, dialect, licence=licence)
    notes = []
    if draft.left_out:
        notes.append(f"left out, as tools keep it for themselves: {', '.join(draft.left_out)}")
    if draft.unusable:
        notes.append(f"left out, as a Kitfile cannot name it: {', '.join(draft.unusable)}")
    return draft.kitfile, tuple(notes)


def listing_of(files: Sequence[HubFile]) -> Listing:
    """Return paths as what a look into their directory and those in it would give."""
    here: list[ListedFile] = []
    inside: dict[str, list[ListedFile]] = {}
    below: dict[str, set[str]] = {}
    for file in files:
        head, *rest = file.path.split("/", 2)
        if not rest:
            here.append(ListedFile(head, file.size))
            continue
        below.setdefault(head, set())
        inside.setdefault(head, [])
        if len(rest) == 1:
            inside[head].append(ListedFile(rest[0], file.size))
        else:
            below[head].add(rest[0])
    return Listing(files=tuple(here), directories=tuple(_directories(inside, below)))


def _directories(
    inside: Mapping[str, Sequence[ListedFile]], below: Mapping[str, Collection[str]]
) -> list[ListedDirectory]:
    return [
        ListedDirectory(
            name=name,
            files=tuple(sorted(found, key=lambda file: file.name)),
            directories=tuple(sorted(below[name])),
            count=len(found),
        )
        for name, found in inside.items()
    ]


def needed_by(
    kitfile: Kitfile, files: Sequence[HubFile], ignored: Collection[str] = ()
) -> tuple[HubFile, ...]:
    """Return the files that a layer takes, and those that say what no layer takes.

    Of what is ignored as much as keeps a path of the Kitfile there: its layer may be empty.
    """
    paths = {clean_path(place.entry.path) for place in layer_entries(kitfile)}
    below = [file for file in files if "." in paths or paths.intersection(_above(file))]
    needed = [file for file in below if file.path not in ignored]
    absent = paths.difference(*map(_above, needed))
    for file in below:
        if file.path in ignored and (kept := absent.intersection(_above(file))):
            needed.append(file)
            absent -= kept
    rules = [file for file in files if file.path == KITIGNORE_NAME and file not in needed]
    return (*needed, *rules)


def _above(file: HubFile) -> Iterator[str]:
    """Yield a file's path, and those of the directories it is in."""
    path = file.path
    while path:
        yield path
        path = path.rpartition("/")[0]


def require_place_for_kitfile(files: Iterable[HubFile]) -> None:
    """Check that no directory is called like a Kitfile. Raises `InvalidHubTreeError`."""
    for file in files:
        head, slash, _ = file.path.partition("/")
        if slash and head in (*KITFILE_NAMES, KITIGNORE_NAME):
            raise InvalidHubTreeError(
                f"{head} is a directory, and has to be a file",
                hint=f"leave it out with --exclude '{head}/*'",
            )


def _key(args: ImportArgs) -> str:
    source = f"{args.source}@{args.source.revision}"
    # Another choice, another Kitfile or no push is another wish, and takes no one's place.
    wish = msgspec.json.encode((args.push, args.include, args.exclude, args.kitfile))
    digest = sha256(wish).hexdigest()[:32]
    return f"{source}>{args.repository}:{','.join(args.tags)}@{args.asker}#{digest}"


IMPORT: JobKind[ImportArgs, Ports] = JobKind(
    name="import",
    lane=Lane.PULL,
    args=ImportArgs,
    retry=RetryPolicy(max_attempts=8),
    key=_key,
    lock=lambda args: args.repository,
    run=run,
)
