"""Kitfiles from names and sizes: `kit`'s own cases told anew, and where kitd goes beyond them."""

import pytest

from kitd.modelkit.dialect import Dialect
from kitd.modelkit.generate import CROWD, ListedDirectory, ListedFile, Listing, generate
from kitd.modelkit.kitfile import Package, parse_kitfile
from kitd.modelkit.validation import require_valid
from kitd.modelkit.yaml_writer import kitfile_to_yaml

PACKAGE = Package(name="example", description="told anew")


def listing(tree):
    """Return a listing: a number is a file's size, a mapping a directory."""
    files = [ListedFile(name, size) for name, size in tree.items() if isinstance(size, int)]
    directories = []
    for name, inside in tree.items():
        if isinstance(inside, dict):
            here = [
                ListedFile(each, size) for each, size in inside.items() if isinstance(size, int)
            ]
            below = [each for each, size in inside.items() if isinstance(size, dict)]
            directories.append(
                ListedDirectory(
                    name=name, files=tuple(here), directories=tuple(below), count=len(here)
                )
            )
    return Listing(files=tuple(files), directories=tuple(directories))


def draft(tree, dialect=Dialect.CURRENT, **more):
    """Return a draft whose Kitfile is valid and reads back from its YAML as it is."""
    made = generate(listing(tree), PACKAGE, dialect, **more)
    require_valid(made.kitfile, dialect)
    assert parse_kitfile(kitfile_to_yaml(made.kitfile).encode()) == made.kitfile
    return made


def entries(tree, dialect=Dialect.CURRENT, **more):
    """Return the paths of a Kitfile by where they stand."""
    kitfile = draft(tree, dialect, **more).kitfile
    model = kitfile.model
    lists = {
        "model": [] if model is None else [model.path],
        "parts": [] if model is None else [part.path for part in model.parts],
        "code": [entry.path for entry in kitfile.code],
        "datasets": [entry.path for entry in kitfile.datasets],
        "docs": [entry.path for entry in kitfile.docs],
        "prompts": [entry.path for entry in kitfile.prompts],
        "servers": [entry.path for entry in kitfile.mcp_servers],
    }
    return {name: paths for name, paths in lists.items() if paths}


def test_an_empty_directory_gives_a_package_and_nothing_else():
    kitfile = draft({}).kitfile
    assert kitfile.manifest_version == "1.0.0"
    assert kitfile.package == PACKAGE
    assert entries({}) == {}


def test_kitfiles_that_are_there_are_no_content():
    assert entries({"Kitfile": 1, "kitfile": 1, ".kitfile": 1, ".kitignore": 1}) == {}


@pytest.mark.parametrize(
    ("dialect", "code", "slash"),
    [
        (
            Dialect.CURRENT,
            ["both/", "build/", "deep/", "empty/", "lib/", "pkg/", "settings/", "src/"],
            "/",
        ),
        (
            Dialect.KIT_1_7,
            ["build", "lib", "pkg", "src", "both", "deep", "empty", "settings"],
            "",
        ),
    ],
)
def test_directories_by_name_and_by_content(dialect, code, slash):
    """By name; in kit 1.7 special names first, then what nothing can be told of."""
    tree = {
        "build": {"Makefile": 1}, "lib": {}, "pkg": {"a.csv": 1}, "src": {"main.py": 1},
        "docs": {"logo.png": 1},
        "weights": {"b.gguf": 10, "config.json": 1},
        "records": {"a.csv": 1, "schema.json": 1},
        "guides": {"a.md": 1},
        "both": {"a.md": 1, "b.csv": 1},
        "deep": {"a.csv": 1, "more": {}},
        "settings": {"a.json": 1},
        "empty": {},
    }  # fmt: skip
    assert entries(tree, dialect) == {
        "model": ["weights/b.gguf"],
        "parts": ["weights/config.json"],
        "code": code,
        "datasets": [f"records{slash}"],
        "docs": [f"docs{slash}", f"guides{slash}"],
    }


def test_metadata_belongs_to_the_model():
    tree = {"model.onnx": 10, "config.json": 1, "labels.txt": 1, "data.csv": 1}
    assert entries(tree) == {
        "model": ["model.onnx"],
        "parts": ["config.json", "labels.txt"],
        "datasets": ["data.csv"],
    }


def test_metadata_without_a_model_is_data_and_comes_last():
    assert entries({"a.json": 1, "b.parquet": 1, "c.xml": 1}) == {
        "datasets": ["b.parquet", "a.json", "c.xml"]
    }


def test_a_file_that_stands_out_is_the_model_and_names_it():
    kitfile = draft({"adapter.safetensors": 100, "base.safetensors": 400}).kitfile
    assert (kitfile.model.name, kitfile.model.path) == ("base", "base.safetensors")
    assert [part.path for part in kitfile.model.parts] == ["adapter.safetensors"]


@pytest.mark.parametrize(("largest", "name"), [(300, ""), (301, "c")])
def test_it_stands_out_above_one_and_a_half_times_the_average(largest, name):
    """Of three files with 600 bytes, or 601: the average is 200 either way."""
    sizes = {"a.gguf": 150, "b.gguf": 600 - 150 - 300, "c.gguf": largest}
    kitfile = draft(sizes).kitfile
    assert kitfile.model.name == name
    assert kitfile.model.path == ("c.gguf" if name else "a.gguf")


def test_shards_of_equal_size_are_in_order_and_name_nothing():
    shards = {f"model-{n}-of-3.safetensors": 100 for n in (3, 1, 2)}
    kitfile = draft(shards).kitfile
    assert (kitfile.model.name, kitfile.model.path) == ("", "model-1-of-3.safetensors")
    assert [part.path for part in kitfile.model.parts] == [
        "model-2-of-3.safetensors",
        "model-3-of-3.safetensors",
    ]


def test_a_model_in_a_directory_keeps_the_directory_in_its_name():
    assert draft({"weights": {"best.pt": 5}}).kitfile.model.name == "weights/best"


def test_files_by_suffix_and_the_rest_is_code():
    tree = {
        "model.safetensors": 1, "LICENSE": 1, "README": 1, "notes.adoc": 1, "a.tar": 1,
        "train.py": 1, "upper.CSV": 1,
    }  # fmt: skip
    made = draft(tree).kitfile
    assert entries(tree) == {
        "model": ["model.safetensors"],
        "code": ["train.py", "upper.CSV"],
        "datasets": ["a.tar"],
        "docs": ["LICENSE", "README", "notes.adoc"],
    }
    assert [entry.description for entry in made.docs] == ["License file", "Readme file", ""]


def test_more_than_five_files_of_code_are_one_entry_beside_the_directories():
    files = {f"{n}.py": 1 for n in range(5)}
    assert entries({"src": {}, **files})["code"] == ["src/", *files]
    assert entries({"src": {}, "5.py": 1, **files}) == {"code": ["src/", "."]}


def test_in_kit_1_7_one_file_of_code_or_six_directories_are_one_entry():
    tree = {"src": {}} | {f"module{n}": {"a.py": 1} for n in range(5)}
    assert len(entries(tree, Dialect.KIT_1_7)["code"]) == 6
    assert entries(tree | {"module5": {}}, Dialect.KIT_1_7) == {"code": ["."]}
    assert entries(tree | {"a.py": 1}, Dialect.KIT_1_7) == {"code": ["."]}
    assert len(entries(tree | {"module5": {}})["code"]) == 7


@pytest.mark.parametrize(
    ("tree", "where"),
    [
        ({"model.onnx": 1, "a.csv": 1}, lambda kitfile: kitfile.model),
        ({"a.csv": 1}, lambda kitfile: kitfile.datasets[0]),
        ({"a.csv": 1, "b.csv": 1, "main.py": 1}, lambda kitfile: kitfile.code[0]),
        ({"a.csv": 1, "b.csv": 1}, lambda kitfile: kitfile.package),
    ],
)
def test_the_licence_is_that_of_one_thing_or_of_all(tree, where):
    assert where(draft(tree, licence="MIT").kitfile).license == "MIT"


def test_what_agents_read_are_prompts():
    tree = {
        "AGENTS.md": 1, "claude.md": 1, "review.prompt.yaml": 1,
        "asking": {"a.prompt": 1, "b.prompt.md": 1},
        "skill": {"SKILL.md": 1, "run.py": 1, "scripts": {}},
    }  # fmt: skip
    assert entries(tree) == {
        "prompts": ["AGENTS.md", "claude.md", "review.prompt.yaml", "asking/", "skill"]
    }


def test_bundles_of_mcp_servers_are_named_after_their_paths():
    tree = {
        "web.mcpb": 1, ".mcpb": 1, "one": {"mail.mcpb": 1},
        "two": {"files.mcpb": 1, "main.py": 1},
    }  # fmt: skip
    kitfile = draft(tree).kitfile
    assert {server.name: server.path for server in kitfile.mcp_servers} == {
        ".mcpb": ".mcpb",
        "web": "web.mcpb",
        "one/mail": "one/mail.mcpb",
        "two/files": "two/files.mcpb",
    }
    assert [code.path for code in kitfile.code] == ["two/"]


def test_the_dialect_of_kit_1_7_has_neither():
    tree = {"AGENTS.md": 1, "web.mcpb": 1}
    assert entries(tree, Dialect.KIT_1_7) == {"docs": ["AGENTS.md"], "code": ["."]}


def test_what_tools_keep_is_left_out_and_told():
    tree = {
        ".git": {"config": 1}, ".venv": {}, "__pycache__": {"a.pyc": 1}, "node_modules": {},
        ".ipynb_checkpoints": {}, ".DS_Store": 1, ".gitignore": 1, ".env": 1, "a.csv": 1,
    }  # fmt: skip
    made = draft(tree)
    assert entries(tree) == {"datasets": ["a.csv"]}
    assert set(made.left_out) == set(tree) - {"a.csv"}
    assert made.ignore_lines == ()


def test_what_whole_directories_would_take_all_the_same_is_for_kitignore():
    tree = {".git": {}, "src": {"__pycache__": {}, "a.py": 1}} | {f"{n}.py": 1 for n in range(6)}
    assert draft(tree).ignore_lines == (".git", "**/__pycache__")
    few = draft({"main.py": 1, ".git": {}, "src": {"__pycache__": {}}})
    assert few.ignore_lines == ("**/__pycache__",)
    ignored = {".git", "src/__pycache__"}
    told = draft(tree, is_ignored=ignored.__contains__)
    assert (told.left_out, told.ignore_lines) == ((), ())


def test_a_tools_directory_does_not_make_a_dataset_code():
    made = draft({"data": {"a.csv": 1, ".ipynb_checkpoints": {}}})
    assert [entry.path for entry in made.kitfile.datasets] == ["data/"]
    assert made.ignore_lines == ("**/.ipynb_checkpoints",)


def test_what_is_ignored_is_nowhere():
    tree = {"a.csv": 1, "b.csv": 1, "data": {"a.csv": 1, "x.py": 1}, "old": {"m.pt": 1}}
    ignored = {"a.csv", "data/x.py", "old"}
    assert entries(tree, is_ignored=ignored.__contains__) == {"datasets": ["b.csv", "data/"]}


def test_names_that_read_as_references_are_told_and_not_written():
    made = draft({"model:v1.gguf": 5, "a.csv": 1, "s3:data": {"a.csv": 1}, "w": {"m:1.pt": 1}})
    assert made.unusable == ("model:v1.gguf", "s3:data", "w/m:1.pt")
    assert made.kitfile.model is None


@pytest.mark.parametrize(
    ("suffix", "where"), [("npy", "datasets"), ("csv", "datasets"), ("md", "docs"), ("py", "code")]
)
def test_a_crowded_directory_is_one_entry(suffix, where):
    """One file stands for all of its kind."""
    crowd = ListedDirectory(name="many", files=(ListedFile(f"a.{suffix}", 1),), count=CROWD + 1)
    kitfile = generate(Listing(directories=(crowd,)), PACKAGE, Dialect.CURRENT).kitfile
    assert [entry.path for entry in getattr(kitfile, where)] == ["many/"]
    assert kitfile.model is None


def test_names_that_yaml_would_misread_come_back():
    tree = {"- a.csv": 1, "yes.csv": 1, "a: b.csv".replace(": ", " #"): 1, "ü\n.csv": 1, "#.csv": 1}
    assert len(entries(tree)["datasets"]) == len(tree)
