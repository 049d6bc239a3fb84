"""What is refused and what is warned of, in both dialects."""

import pytest

from kitd.modelkit.dialect import Dialect
from kitd.modelkit.errors import KitfileError
from kitd.modelkit.kitfile import parse_kitfile
from kitd.modelkit.validation import require_valid, validate

BOTH = [Dialect.CURRENT, Dialect.KIT_1_7]


def errors(text: str, dialect: Dialect) -> tuple[str, ...]:
    return validate(parse_kitfile(text.encode()), dialect).errors


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "code: [{path: ./a}]\ndocs: [{path: a/}]",
            "code layer 0 and docs layer 0 use the same path a",
        ),
        ("model: {name: m}\ncode: [{path: .}]", "model m and code layer 0 use the same path ."),
        (
            "model: {path: x, parts: [{name: p, path: x}]}\ndatasets: [{path: x}]",
            "model, modelpart p and dataset layer 0 use the same path x",
        ),
        ("code: [{path: /etc}]", "absolute paths are not supported (path /etc in code layer 0)"),
        ("code: [{path: //etc}]", "absolute paths are not supported (path /etc in code layer 0)"),
        (
            "docs: [{path: data/../../x}]",
            "paths outside the project are not supported (path ../x in docs layer 0)",
        ),
        (
            "docs: [{path: ..}]",
            "paths outside the project are not supported (path .. in docs layer 0)",
        ),
        ('docs: [{path: "a\\0b"}]', "a path holds the character NUL (in docs layer 0)"),
        (
            "model: {path: m, parts: [{path: p, type: -x}]}",
            "modelpart 0 has an invalid type (letters, digits, dots, dashes and underscores)",
        ),
        (
            f"model: {{path: m, parts: [{{path: p, type: {'t' * 65}}}]}}",
            "the type of modelpart 0 is longer than 64 characters",
        ),
    ],
)
def test_refused_in_both_dialects(text, problem, dialect):
    assert errors(text, dialect) == (problem,)


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    "text",
    [
        "package: {name: only}",
        "code: [{path: src/../lib}, {path: src}]",
        "code: [{path: ..a}, {path: a..}]",
        f"model: {{path: m, parts: [{{path: p, type: {'t' * 64}}}]}}",
        "model: {path: m}\ncode: [{path: .}]",
        "model: {path: 'registry.example.com/team/base:v1'}",
    ],
)
def test_accepted_in_both_dialects(text, dialect):
    assert errors(text, dialect) == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("code: [{path: 'http://x.org/y'}]", "HTTP URLs are not supported in paths"),
        ("model: {path: 'https://x.org/y'}", "HTTP URLs are not supported in paths"),
        ("code: [{path: 'a:b'}]", "only local paths are permitted"),
        ("datasets: [{path: 's3://b/k'}]", "only local paths are permitted"),
        ("docs: [{path: 'foo+x:Bar'}]", "this reads as a URL"),
        ("datasets: [{path: d, remotePath: 's3://b/k'}]", "remoteHash is required"),
        (
            "datasets: [{path: d, remotePath: 's3://b', remoteHash: h}]",
            "does not name an S3 object",
        ),
        *(
            (
                f"datasets: [{{path: d, remotePath: 's3://{place}', remoteHash: h}}]",
                f"s3://{place} does not name an S3 object (in dataset layer 0)",
            )
            for place in ("b/", "/k", "b/?versionId=1", "b/k?versionId=", "b/k?acl")
        ),
        (
            "datasets: [{path: ./, remotePath: 's3://b/k?versionId=1', remoteHash: h}]",
            "s3://b/k?versionId=1 is one file and needs a path (in dataset layer 0)",
        ),
        ("datasets: [{path: d, remoteHash: h}]", "remoteHash without remotePath"),
        ("datasets: [{path: d, remotePath: 'ftp://x'}]", "remotePath takes URLs of S3"),
        ("datasets: [{path: d, remotePath: 'http://a.b/c'}]", "remotePath takes URLs of S3"),
        *(
            (
                f"datasets: [{{path: d, remotePath: 'https://{place}'}}]",
                "remotePath is not the https:// address of a file (in dataset layer 0)",
            )
            for place in ("", "a.b", "a.b/", "u:p@a.b/c", "a.b/c#d", "a.b/c d", "/c")
        ),
        (
            "datasets: [{path: d, remotePath: 'https://a.b/c', remoteHash: abc}]",
            "remoteHash beside https:// is sha256:<64 hex digits> (in dataset layer 0)",
        ),
        (
            "datasets: [{path: ., remotePath: 'https://a.b/c'}]",
            "one file and needs a path (in dataset layer 0)",
        ),
        (
            "datasets: [{path: d, remotePath: 'r.io/a/b:c'}]\ncode: [{path: d/e}]",
            "code layer 0 uses a path (d/e) within that of the remote dataset layer 0",
        ),
        ("mcpServers: [{path: a.mcpb}]", "must have a name"),
        ("mcpServers: [{name: a, path: a.MCPB}]", "must be one .mcpb file"),
        (
            "mcpServers: [{name: a, path: a.mcpb}, {name: a, path: b.mcpb}]",
            "name a is used 2 times",
        ),
    ],
)
def test_refused_in_the_current_dialect(text, problem):
    (found,) = errors(text, Dialect.CURRENT)
    assert problem in found


@pytest.mark.parametrize("path", ["dir/A:b", "a b", "./film:champion"])
def test_a_colon_that_starts_no_url_and_no_reference_is_a_path(path):
    assert errors(f"code: [{{path: '{path}'}}]", Dialect.CURRENT) == ()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("prompts: [{path: p}]", "prompts"),
        ("mcpServers: [{name: s, path: s.mcpb}]", "mcpServers"),
        ("datasets: [{path: d, remotePath: 's3://b/k', remoteHash: h}]", "remote datasets"),
    ],
)
def test_kit_1_7_cannot_carry_what_came_later(text, what):
    assert errors(text, Dialect.KIT_1_7) == (f"{what} cannot be packed in the dialect kit-1.7",)
    assert errors(text, Dialect.CURRENT) == ()


def test_all_problems_are_raised_at_once():
    kitfile = parse_kitfile(b"code: [{path: /a}, {path: ../b}]")
    with pytest.raises(KitfileError) as caught:
        require_valid(kitfile, Dialect.CURRENT)
    assert len(caught.value.problems) == 2
    assert all(problem in caught.value.message for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("manifestVersion: 1.0", "unrecognized manifestVersion 1.0: read as 1.0.0"),
        ("package: {name: x}", "unrecognized manifestVersion none: read as 1.0.0"),
        (
            "manifestVersion: 1.0.0\nmodel: {name: x}",
            "the model has no path: kit 1.16 cannot unpack such a kit",
        ),
        (
            "manifestVersion: 1.0.0\ndatasets: [{path: d, remotePath: 'r.io/a:b', remoteHash: h}]",
            "remoteHash means nothing beside a reference (in dataset layer 0)",
        ),
        (
            "manifestVersion: 1.0.0\ndatasets: [{path: d, remotePath: 'https://a.b/c?d=e'}]",
            "without remoteHash nobody notices another file (in dataset layer 0)",
        ),
    ],
)
def test_warnings_do_not_keep_a_kit_from_being_packed(text, warning):
    assert require_valid(parse_kitfile(text.encode()), Dialect.CURRENT) == (warning,)
    assert validate(parse_kitfile(b"manifestVersion: 2"), Dialect.KIT_1_7).warnings == ()


def test_a_problem_is_one_short_line_whatever_a_path_holds():
    hostile = "/" + "x" * 1000 + "\\n\\e[2J"
    (found,) = errors('code: [{path: "/\\n\\e[2J"}]', Dialect.CURRENT)
    assert found.isprintable()
    (found,) = errors(f'code: [{{path: "{hostile}"}}]', Dialect.CURRENT)
    assert len(found) < 500


def test_a_message_quotes_the_first_problems_and_counts_the_others():
    listed = ", ".join(f"{{path: /{number}}}" for number in range(30))
    with pytest.raises(KitfileError, match=r"; and 20 more$") as caught:
        require_valid(parse_kitfile(f"code: [{listed}]".encode()), Dialect.CURRENT)
    assert len(caught.value.problems) == 30
