"""What kits there are, here and in registries, and what is in their Kitfiles."""

import json
import urllib.request

KITFILE = """\
manifestVersion: 1.0.0
package: {name: demo, authors: [Ada]}
model:
  name: weights
  path: model.bin
  parts: [{name: tokenizer, path: data/a.csv}]
  parameters: {rate: 0.25, steps: [1, 2]}
"""


def push_tag_of_no_kit(host):
    """Put an index without manifests beside the kits."""
    kind = "application/vnd.oci.image.index.v1+json"
    content = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": []}).encode()
    url = f"http://{host}/v2/team/demo/manifests/index"
    headers = {"Content-Type": kind}
    request = urllib.request.Request(url, content, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=10):
        pass


def test_all_tags_of_a_repository_are_listed_from_its_registry(kitd, project, docker_registry):
    """A kit has one row in JSON, with all its tags; what is no kit is passed over, and told."""
    there = f"{docker_registry.host}/team/demo"
    daemon = kitd().start()
    first = daemon.json("pack", project, "-t", f"{there}:v1", "--push")["digest"]
    (project / "model.bin").write_bytes(b"other weights")
    second = daemon.json("pack", project, "-t", f"{there}:v2,latest", "--push")["digest"]
    push_tag_of_no_kit(docker_registry.host)
    elsewhere = kitd().start()
    said = elsewhere.kitctl("--json", "list", "--remote", there)

    listed = {kit["digest"]: kit for kit in said.json}
    assert {digest: kit["tags"] for digest, kit in listed.items()} == {
        first: ["v1"],
        second: ["latest", "v2"],
    }
    assert said.err == "passed over 1 tag of no kit\n"
    # The same as of the cache that it was packed in.
    here = {kit["digest"]: kit for kit in daemon.json("list", there)}
    assert {**listed[first], "tags": []} == {**here[first], "tags": []}

    (one,) = elsewhere.json("list", "--remote", f"{there}:v2")
    assert (one["digest"], one["tags"]) == (second, ["v2"])
    (one,) = elsewhere.json("list", "--remote", f"{there}@{first}")
    assert (one["digest"], one["tags"]) == (first, [])
    assert elsewhere.kitctl("list", "--remote", f"{there}:absent").code == 1
    assert elsewhere.kitctl("list", "--remote", "team/demo").code == 1
    assert elsewhere.kitctl("list", "--remote").code == 2


def test_kits_are_listed_by_what_they_hold(kitd, project, new_project, tmp_path, docker_registry):
    """In the cache and in a registry: any of the filters will do."""
    other = new_project(tmp_path / "other", KITFILE)
    there = f"{docker_registry.host}/team/demo"
    daemon = kitd().start()
    daemon.json("pack", project, "-t", f"{there}:data", "--push")
    daemon.json("pack", other, "-t", f"{there}:parts", "--push")

    def tags(*filters, where=()):
        words = [word for text in filters for word in ("-f", text)]
        kits = daemon.json("list", *where, there, *words)
        return {tag for kit in kits for tag in kit["tags"]}

    for where in ((), ("--remote",)):
        assert tags("datasets", where=where) == {"data"}
        assert tags("model:tokenizer", where=where) == {"parts"}
        assert tags("model:tokenizer", "datasets:reviews", where=where) == {"data", "parts"}
        assert tags("docs", where=where) == set()
        assert tags("kitfile", where=where) == {"data", "parts"}
    refused = daemon.kitctl("list", "-f", "modle")
    assert (refused.code, "is not a filter" in refused.err) == (1, True)


def test_lists_have_the_formats_of_kit(kitd, project):
    daemon = kitd().start()
    assert daemon.kitctl("list", "--format", "{{.Repo}}").out == ""
    daemon.json("pack", project, "-t", "demo:v1,v2")
    line = daemon.kitctl("list", "--format", "{{.Repo}} {{.Tags}} {{.Author}}").out
    assert line == "demo [v1 v2] Ada\n"
    as_json = daemon.kitctl("list", "--format", "json").out
    assert json.loads(as_json) == daemon.json("list")
    assert daemon.kitctl("list", "--format", "{{range .Tags}}").code == 2


def test_info_shows_what_a_path_leads_to(kitd, new_project, tmp_path):
    root = new_project(tmp_path / "parts", KITFILE)
    daemon = kitd().start()
    daemon.json("pack", root, "-t", "demo:v1")

    def info(path):
        return daemon.kitctl("info", "demo:v1", "-f", path).out

    assert info(".model.parts[0].path") == "data/a.csv\n"
    assert info("model.parameters.rate") == "0.25\n"
    assert info("Model.Parts") == "- name: tokenizer\n  path: data/a.csv\n"
    assert info(".model.parameters") == "rate: 0.25\nsteps:\n  - 1\n  - 2\n"
    assert info(".model.digest").startswith("sha256:")
    assert daemon.json("info", "demo:v1", "-f", ".model.parameters.steps[1]")["value"] == 2
    assert "value" not in daemon.json("info", "demo:v1")
    assert "kitfile" not in daemon.json("info", "demo:v1", "-f", ".model.path")
    absent = daemon.kitctl("info", "demo:v1", "-f", ".model.paht")
    assert (absent.code, "there are: name, path" in absent.err) == (1, True)
    assert daemon.kitctl("info", "demo:v1", "-f", "[").code == 1
