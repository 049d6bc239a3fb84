import pytest

from kitd.client.record import Kit
from kitd.ctl.error import UsageError
from kitd.ctl.kit_template import fill_template, parse_template

KIT = Kit("team/m", "sha256:abc", ("v1", "v2"), "bert\x1b", 2048, None, {})


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{{.Repo}}", "team/m\n"),
        ("{{ .Repo }}:{{ .Tags }}\\t{{.Size}}", "team/m:[v1 v2]\t2.0 KiB\n"),
        ("{{ .Repo }}:{{ index .Tags 0 }}|{{index .Tags 1}}|{{index .Tags 2}}", "team/m:v1|v2|\n"),
        ("{{.Digest}}|{{.ModelName}}|{{.Author}}|\n", "sha256:abc|bert\ufffd||\n"),
    ],
)
def test_fields_are_filled_in(template, line):
    assert fill_template(parse_template(template), KIT) == line


@pytest.mark.parametrize(
    "template",
    [
        "yaml",
        "{{range .Tags}}x{{end}}",
        "{{.repo}}",
        "{{.Repo | upper}}",
        "{{.Repo",
        "{{index .Tags -1}}",
        "{{index .Tags 9999}}",
        "{{index .Repo 0}}",
    ],
)
def test_the_rest_of_the_language_is_refused(template):
    with pytest.raises(UsageError):
        parse_template(template)
