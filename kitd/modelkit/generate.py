"""A Kitfile for a directory that has none, from the names and sizes in it. Pure.

The rules are those of `kit init`, in the version of the dialect: what a name ends in says what a
file is, a directory is one entry if all that lies directly in it is of one kind, and whatever
cannot be told is code. Where this differs from `kit` is said in docs/init.md.
"""

import enum
import posixpath
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from kitd.modelkit.dialect import Dialect
from kitd.modelkit.ignore import KITIGNORE_NAME
from kitd.modelkit.kitfile import (
    KITFILE_NAMES,
    MANIFEST_VERSION,
    Code,
    Dataset,
    Docs,
    Entry,
    Kitfile,
    McpServer,
    Model,
    ModelPart,
    Package,
    Prompt,
)
from kitd.modelkit.validation import not_local

CROWD = 1000
"""Files directly in one directory; one that has more is an entry as a whole."""
MAX_UNKNOWN = 5
"""Files in the root that nothing can be told of, or directories in kit 1.7; more are one entry."""

_MODEL = (
    ".safetensors", ".pkl", ".joblib", ".bin", ".pth", ".pt", ".mar", ".pt2", ".ptl", ".pb",
    ".ckpt", ".tflite", ".tfrecords", ".npy", ".npz", ".keras", ".h5", ".caffemodel", ".pmml",
    ".coreml", ".gguf", ".ggml", ".ggmf", ".llamafile", ".onnx",
)  # fmt: skip
_METADATA = (".json", ".yaml", ".xml", ".txt")
_DOCS = (".md", ".adoc", ".html", ".pdf")
_DATASET = (".tar", ".zip", ".parquet", ".csv")
_MCP_BUNDLE = ".mcpb"
AGENT_FILES = frozenset({"agents.md", "skill.md", "claude.md"})
"""In lower case."""
_SKILL = "skill.md"
_CODE_NAMES = frozenset({"src", "pkg", "lib", "build"})
_DOCS_NAME = "docs"

TOOL_DIRECTORIES = frozenset({
    ".git", ".hg", ".svn", ".bzr", ".jj", ".dvc", ".venv", "venv", "__pycache__", "node_modules",
    ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".tox",
    ".nox", ".eggs", ".cache", ".idea", ".vscode", ".terraform", ".gradle", ".huggingface",
    ".AppleDouble", ".Spotlight-V100", ".Trashes", "$RECYCLE.BIN",
})  # fmt: skip
"""What tools put into a project for themselves; the last four are operating systems'."""
TOOL_FILES = frozenset({
    ".gitignore", ".gitattributes", ".gitmodules", ".gitkeep", ".hgignore", ".dvcignore",
    ".dockerignore", ".kitd-hold", ".env", ".DS_Store", ".LSOverride", "Thumbs.db", "desktop.ini",
    "ehthumbs.db",
})  # fmt: skip
"""As above; `.env` is where secrets are kept."""
_TOOLS = frozenset(name.lower() for name in TOOL_DIRECTORIES | TOOL_FILES)


class FileKind(enum.Enum):
    """What a file is, by its name."""

    MODEL = enum.auto()
    METADATA = enum.auto()
    DOCS = enum.auto()
    DATASET = enum.auto()
    PROMPT = enum.auto()
    MCP_SERVER = enum.auto()
    UNKNOWN = enum.auto()


_ENTRIES = frozenset({FileKind.DOCS, FileKind.DATASET, FileKind.PROMPT})
"""Kinds of which a whole directory is an entry that says so."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A regular file, by its name in its directory."""

    name: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDirectory:
    """A directory of the root. Links and special files are listed nowhere.

    Of one with more than `CROWD` files, those that are listed may stand for the others of their
    kind; `count` is how many there are.
    """

    name: str
    files: tuple[ListedFile, ...] = ()
    directories: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What there is in a directory and in those directly below it."""

    files: tuple[ListedFile, ...] = ()
    directories: tuple[ListedDirectory, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A Kitfile, and what a person had better know about it."""

    kitfile: Kitfile
    left_out: tuple[str, ...]
    """What no entry was made for, because tools keep it for themselves."""
    ignore_lines: tuple[str, ...]
    """What to write into .kitignore: an entry of a whole directory would take it all the same."""
    unusable: tuple[str, ...]
    """Files and directories that a Kitfile cannot name: they read as references or URLs."""


def is_licence(name: str) -> bool:
    """Whether a file in the root holds a licence, by its name."""
    return name.lower().startswith(("license", "licence", "copying"))


def kind_of(name: str, dialect: Dialect) -> FileKind:
    """Return what a file is by its name; kit 1.7 knows neither prompts nor MCP servers."""
    lower = name.lower()
    if dialect is not Dialect.KIT_1_7:
        if lower in AGENT_FILES or ".prompt" in lower:
            return FileKind.PROMPT
        if name.endswith(_MCP_BUNDLE):
            return FileKind.MCP_SERVER
    for suffixes, kind in (
        (_MODEL, FileKind.MODEL),
        (_METADATA, FileKind.METADATA),
        (_DOCS, FileKind.DOCS),
        (_DATASET, FileKind.DATASET),
    ):
        if name.endswith(suffixes):
            return kind
    return FileKind.UNKNOWN


def generate(
    listing: Listing,
    package: Package,
    dialect: Dialect,
    *,
    licence: str = "",
    is_ignored: Callable[[str], bool] = lambda _path: False,
) -> Draft:
    """Return a Kitfile for a directory; it is valid in its dialect.

    `licence` is the SPDX identifier of its licence file. What is ignored, by its path relative to
    the directory, is not looked at.
    """
    sorting = _Sorting(dialect, is_ignored)
    for file in sorted(listing.files, key=lambda file: file.name):
        sorting.add_file(file)
    for directory in sorted(listing.directories, key=lambda directory: directory.name):
        sorting.add_directory(directory)
    kitfile = sorting.kitfile(package)
    return Draft(
        kitfile=_with_licence(kitfile, licence) if licence else kitfile,
        left_out=tuple(sorting.left_out),
        ignore_lines=tuple(_ignore_lines(kitfile, sorting)),
        unusable=tuple(sorting.unusable),
    )


@dataclass(slots=True)
class _Sorting:
    """What was seen so far, by what it is."""

    dialect: Dialect
    is_ignored: Callable[[str], bool]
    models: list[ListedFile] = field(default_factory=list)
    """Here and below by their whole paths."""
    metadata: list[str] = field(default_factory=list)
    code: list[Code] = field(default_factory=list)
    datasets: list[Dataset] = field(default_factory=list)
    docs: list[Docs] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    servers: list[str] = field(default_factory=list)
    unknown_directories: list[str] = field(default_factory=list)
    unknown_files: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    nested_tools: dict[str, set[str]] = field(default_factory=dict)
    """Names of tools' directories and files, by the directory that holds them."""
    unusable: list[str] = field(default_factory=list)

    def _is_taken(self, path: str) -> bool:
        if self.is_ignored(path):
            return False
        if not_local(path) is None and "\0" not in path:
            return True
        self.unusable.append(path)
        return False

    def add_file(self, file: ListedFile) -> None:
        name = file.name
        if name in KITFILE_NAMES or name == KITIGNORE_NAME or self.is_ignored(name):
            return
        if name.lower() in _TOOLS:
            self.left_out.append(name)
            return
        if not self._is_taken(name):
            return
        if name.lower().startswith("readme"):
            self.docs.append(Docs(path=name, description="Readme file"))
        elif is_licence(name):
            self.docs.append(Docs(path=name, description="License file"))
        else:
            self._add_kind(kind_of(name, self.dialect), file)

    def _add_kind(self, kind: FileKind, file: ListedFile) -> None:
        match kind:
            case FileKind.MODEL:
                self.models.append(file)
            case FileKind.METADATA:
                self.metadata.append(file.name)
            case FileKind.MCP_SERVER:
                self.servers.append(file.name)
            case FileKind.UNKNOWN:
                self.unknown_files.append(file.name)
            case _:
                self._add_entry(kind, file.name)

    def _directory_path(self, name: str) -> str:
        """Return how kit spells a directory; only newer ones say that it is one."""
        return name if self.dialect is Dialect.KIT_1_7 else f"{name}/"

    def _add_directory_entry(self, kind: FileKind, name: str) -> None:
        path = self._directory_path(name)
        if kind in _ENTRIES:
            self._add_entry(kind, path)
        elif self.dialect is Dialect.KIT_1_7:
            self.unknown_directories.append(path)
        else:
            self.code.append(Code(path=path))

    def _add_entry(self, kind: FileKind, path: str) -> None:
        match kind:
            case FileKind.DOCS:
                self.docs.append(Docs(path=path))
            case FileKind.DATASET:
                self.datasets.append(Dataset(path=path))
            case _:
                self.prompts.append(Prompt(path=path))

    def add_directory(self, directory: ListedDirectory) -> None:
        name = directory.name
        if self.is_ignored(name):
            return
        if name.lower() in _TOOLS:
            self.left_out.append(name)
            return
        if not self._is_taken(name):
            return
        files = [file for file in directory.files if not self.is_ignored(f"{name}/{file.name}")]
        nested = [each for each in directory.directories if not self.is_ignored(f"{name}/{each}")]
        tools = {each for each in nested if each.lower() in _TOOLS}
        tools |= {file.name for file in files if file.name.lower() in _TOOLS}
        if tools:
            self.nested_tools[name] = tools
        files = [file for file in files if file.name not in tools]
        if name == _DOCS_NAME:
            self._add_entry(FileKind.DOCS, self._directory_path(name))
        elif name in _CODE_NAMES:
            self.code.append(Code(path=self._directory_path(name)))
        else:
            is_flat = tools.issuperset(nested)
            self._add_by_content(name, files, is_flat=is_flat, is_crowded=directory.count > CROWD)

    def _add_by_content(
        self, name: str, files: Sequence[ListedFile], *, is_flat: bool, is_crowded: bool
    ) -> None:
        by_kind: dict[FileKind, list[ListedFile]] = {}
        for file in files:
            path = f"{name}/{file.name}"
            by_kind.setdefault(kind_of(file.name, self.dialect), []).append(
                ListedFile(path, file.size)
            )
        skill = any(file.name.lower() == _SKILL for file in files)
        if skill and self.dialect is not Dialect.KIT_1_7:
            # The files beside it are what it speaks of.
            self.prompts.append(Prompt(path=name))
            return
        kinds = by_kind.keys() - {FileKind.METADATA}
        if not is_flat:
            kinds |= {FileKind.UNKNOWN}
        only = next(iter(kinds)) if len(kinds) == 1 else FileKind.UNKNOWN
        if is_crowded:
            # So many weights are arrays or records, and one entry each would be no Kitfile.
            self._add_directory_entry(FileKind.DATASET if only is FileKind.MODEL else only, name)
            return
        self.models += self._usable(by_kind.get(FileKind.MODEL, ()))
        self.servers += [file.name for file in self._usable(by_kind.get(FileKind.MCP_SERVER, ()))]
        if only is FileKind.MODEL:
            self.models += self._usable(by_kind.get(FileKind.METADATA, ()))
        elif only is FileKind.MCP_SERVER:
            self.metadata += [
                file.name for file in self._usable(by_kind.get(FileKind.METADATA, ()))
            ]
        else:
            self._add_directory_entry(only, name)

    def _usable(self, files: Sequence[ListedFile]) -> Iterator[ListedFile]:
        return (file for file in files if self._is_taken(file.name))

    def kitfile(self, package: Package) -> Kitfile:
        """Return the Kitfile without a licence."""
        datasets, model = list(self.datasets), _model(self.models)
        if model is None:
            datasets += [Dataset(path=path) for path in self.metadata]
        else:
            parts = (ModelPart(path=path) for path in self.metadata)
            model = replace(model, parts=(*model.parts, *parts))
        return Kitfile(
            manifest_version=MANIFEST_VERSION,
            package=package,
            model=model,
            code=tuple(self._code()),
            datasets=tuple(datasets),
            docs=tuple(self.docs),
            prompts=tuple(self.prompts),
            mcp_servers=tuple(_servers(self.servers)),
        )

    def _code(self) -> Iterator[Code]:
        if self.dialect is Dialect.KIT_1_7:
            if self.unknown_files or len(self.unknown_directories) > MAX_UNKNOWN:
                yield Code(path=".")
                return
            yield from self.code
            yield from (Code(path=path) for path in self.unknown_directories)
            return
        yield from self.code
        rest = ["."] if len(self.unknown_files) > MAX_UNKNOWN else self.unknown_files
        yield from (Code(path=path) for path in rest)


def _model(files: Sequence[ListedFile]) -> Model | None:
    """Return the model: the largest file if it stands out, else the first of equals, unnamed."""
    if not files:
        return None
    average = sum(file.size for file in files) // len(files)
    largest = max(files, key=lambda file: file.size)
    stands_out = len(files) == 1 or largest.size > average + average // 2
    chosen = largest if stands_out else files[0]
    return Model(
        name=posixpath.splitext(chosen.name)[0] if stands_out else "",
        path=chosen.name,
        parts=tuple(ModelPart(path=file.name) for file in files if file is not chosen),
    )


def _servers(paths: Sequence[str]) -> Iterator[McpServer]:
    """Yield the servers, named after their paths without what these end in."""
    for path in paths:
        yield McpServer(name=path.removesuffix(_MCP_BUNDLE) or path, path=path)


def _with_licence(kitfile: Kitfile, licence: str) -> Kitfile:
    """Return the Kitfile with its licence where it belongs: it is that of one thing, or of all."""
    if kitfile.model is not None:
        return replace(kitfile, model=replace(kitfile.model, license=licence))
    if len(kitfile.datasets) == 1:
        return replace(kitfile, datasets=(replace(kitfile.datasets[0], license=licence),))
    if len(kitfile.code) == 1:
        return replace(kitfile, code=(replace(kitfile.code[0], license=licence),))
    return replace(kitfile, package=replace(kitfile.package, license=licence))


def _ignore_lines(kitfile: Kitfile, sorting: _Sorting) -> Iterator[str]:
    entries: tuple[Entry, ...] = (*kitfile.code, *kitfile.datasets, *kitfile.docs, *kitfile.prompts)
    whole = {entry.path.removesuffix("/") for entry in entries}
    if "." in whole:
        yield from map(_literal, sorting.left_out)
    nested: set[str] = set()
    for directory, names in sorting.nested_tools.items():
        if whole & {".", directory}:
            nested |= names
    yield from _nested_lines(nested)


def _nested_lines(names: Collection[str]) -> Iterator[str]:
    return (f"**/{_literal(name)}" for name in sorted(names))


def _literal(name: str) -> str:
    """Return a pattern of .kitignore that means this name."""
    return f"\\{name}" if name[0] in "!#" else name
