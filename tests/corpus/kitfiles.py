"""Hostile Kitfiles, as somebody's project may have one, each with the code of its refusal."""

from collections.abc import Mapping

HEAD = "manifestVersion: 1.0.0\n"

BOMB = (
    HEAD
    + "package: {name: &a xxxxxxxx}\nmodel:\n  path: model.bin\n  parameters:\n"
    + "".join(
        f"    {name}: &{name} [{', '.join(['*' + below] * 10)}]\n"
        for below, name in zip("abcdefghi", "bcdefghij", strict=True)
    )
)


def model(path: str) -> str:
    """Return a Kitfile whose model is at a path, which is YAML."""
    return f"{HEAD}model: {{path: {path}}}\n"


def parts(first: str, second: str) -> str:
    """Return a Kitfile with two parts of a model."""
    return f"{HEAD}model: {{path: model.bin, parts: [{{path: {first}}}, {{path: {second}}}]}}\n"


KITFILES: Mapping[str, tuple[str, bytes | str]] = {
    "no YAML": ("invalid_kitfile", "model: [\n"),
    "nothing": ("invalid_kitfile", ""),
    "a list": ("invalid_kitfile", "- model\n"),
    "a word": ("invalid_kitfile", "model\n"),
    "a page of HTML": ("invalid_kitfile", "<html><body>Sign in</body></html>\n"),
    "bytes that are no UTF-8": ("invalid_kitfile", b"model: {path: \xff\xfe}\n"),
    "UTF-16": ("invalid_kitfile", model("model.bin").encode("utf-16")),
    "NUL": ("invalid_kitfile", b"model: {path: a\0b}\n"),
    "escape characters": ("invalid_kitfile", "model: {path: \x1b[2J}\n"),
    "2 MiB": ("unreadable_input", f"{HEAD}package: {{description: {'x' * (2 << 20)}}}\n"),
    "aliases that stand for a billion": ("invalid_kitfile", BOMB),
    "an alias of itself": ("invalid_kitfile", "model: &a {parameters: *a}\n"),
    "an alias of nothing": ("invalid_kitfile", "model: *a\n"),
    "10,000 levels": ("invalid_kitfile", "model: {parameters: " + "[" * 10_000),
    "10,000 levels that end": (
        "invalid_kitfile",
        "model: {path: a, parameters: " + "[" * 10_000 + "]" * 10_000 + "}\n",
    ),
    "10,000 levels of keys": ("invalid_kitfile", "model: " + "{x: " * 10_000),
    "a Python object": ("invalid_kitfile", "model: !!python/object/apply:os.system [id]\n"),
    "a Python name": ("missing_input", model("!!python/name:os.system x")),
    "a tag of its own": ("missing_input", model("!evil x")),
    "a key twice": ("invalid_kitfile", HEAD + HEAD),
    "a key that is a map": ("invalid_kitfile", "{model: {? {a: b} : c}}\n"),
    "a merge of text": ("invalid_kitfile", "model: {<<: evil}\n"),
    "an unknown key": ("invalid_kitfile", "modle: {path: x}\n"),
    "a digest of its own": ("invalid_kitfile", "model: {path: model.bin, digest: sha256:00}\n"),
    "a model that is a list": ("invalid_kitfile", "model: [x]\n"),
    "datasets that are a map": ("invalid_kitfile", "datasets: {path: x}\n"),
    "a path that is a list": ("invalid_kitfile", model("[x]")),
    "an absolute path": ("invalid_kitfile", model("/etc/passwd")),
    "a path of two slashes": ("invalid_kitfile", model("//etc/passwd")),
    "a path that leads out": ("invalid_kitfile", model("../../etc/passwd")),
    "a path that leads out in its middle": ("invalid_kitfile", model("a/../../etc")),
    "a path with NUL": ("invalid_kitfile", model(r'"a\0b"')),
    "a path that is a URL": ("invalid_kitfile", model("file:///etc/passwd")),
    "a path that is an address": ("invalid_kitfile", model("http://169.254.169.254/latest")),
    "a path that is not there": ("missing_input", model("nowhere")),
    "a path of 100,000 directories": ("invalid_kitfile", model("x/" * 100_000)),
    "a path of 257 directories": ("invalid_kitfile", model("x/" * 257)),
    "a path of 5,000 bytes": ("invalid_kitfile", model("x" * 5000)),
    "two parts of one path": ("invalid_kitfile", parts("data", "data")),
    "two parts of one path, written otherwise": ("invalid_kitfile", parts("data", "./x/../data/")),
    "a part that is the model": ("invalid_kitfile", parts("model.bin", "data")),
    "a part without a path": ("invalid_kitfile", parts('""', '"."')),
    "a type of 65 characters": (
        "invalid_kitfile",
        HEAD + f"model: {{path: model.bin, parts: [{{path: data, type: {'x' * 65}}}]}}\n",
    ),
    "a server without a name": ("invalid_kitfile", HEAD + "mcpServers: [{path: x.mcpb}]\n"),
    "a dataset from nowhere": (
        "invalid_kitfile",
        HEAD + "datasets: [{path: x, remotePath: 'gopher://x'}]\n",
    ),
    "a dataset without a hash": (
        "invalid_kitfile",
        HEAD + "datasets: [{path: x, remotePath: 's3://b/k'}]\n",
    ),
    "a link": ("unreadable_input", model("link")),
    "what is behind a link": ("unreadable_input", model("up/passwd")),
}
