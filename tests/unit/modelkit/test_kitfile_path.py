import pytest

from kitd.errors import NotFoundError
from kitd.modelkit.errors import InvalidFilterError
from kitd.modelkit.kitfile_path import MAX_PATH, find_in_kitfile

KITFILE = {
    "manifestVersion": "1.0.0",
    "model": {
        "name": "weights",
        "parts": ({"path": "a"}, {"path": "b"}),
        "parameters": {"Rate": 0.1, "rate": 0.2, "learning rate": 0.3, "steps": (1, {"x": None})},
    },
    "datasets": ({"name": "reviews", "parameters": {"a": True}},),
    "mcpServers": ({"name": "tools"},),
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".", KITFILE),
        ("", KITFILE),
        ("manifestVersion", "1.0.0"),
        (".model.name", "weights"),
        (".model.parts[0].path", "a"),
        ("model.parts[-1].path", "b"),
        (".model.parts", KITFILE["model"]["parts"]),
        (".datasets[0].parameters.a", True),
        ('.model.parameters."learning rate"', 0.3),
        ('.model.parameters["learning rate"]', 0.3),
        (".model.parameters.steps[1].x", None),
        # As kit spells them, and as people do.
        ("dataSets[0].name", "reviews"),
        ("DataSets[0].Name", "reviews"),
        (".Model.Parameters.rate", 0.2),
        (".MCPServers[0].name", "tools"),
    ],
)
def test_a_path_leads_down_to_items(path, found):
    assert find_in_kitfile(KITFILE, path) == found


@pytest.mark.parametrize(
    ("path", "says", "hint"),
    [
        (".model.path", "there is no .model.path", "there are: name, parts, parameters"),
        (".model.parts[2]", ".model.parts has 2 items, and no [2]", "the first is [0]"),
        (".model.parts[-3]", "no [-3]", None),
        (".model.parts.path", ".model.parts has no keys", "name one: .model.parts[0].path"),
        (".model[0]", ".model is not a list", "there are: name"),
        (".model.name.x", ".model.name has no keys", None),
        (".model.name[0]", ".model.name is not a list", None),
        ("[0]", ". is not a list", "there are: manifestVersion"),
        # Their author may mean two things by two cases.
        (".model.parameters.RATE", "there is no .model.parameters.RATE", "Rate, rate"),
    ],
)
def test_a_path_that_leads_nowhere_says_from_where_on(path, says, hint):
    with pytest.raises(NotFoundError) as caught:
        find_in_kitfile(KITFILE, path)
    assert says in str(caught.value)
    assert hint is None or hint in caught.value.hint


@pytest.mark.parametrize(
    "path",
    [
        "..model", "model..name", "model.", ".model.parts[]", "model.parts[x]", "model name",
        "model.parts[0]path", 'model"name', '.model.""', "a" * (MAX_PATH + 1), "[1][2", "m\0",
    ],
)  # fmt: skip
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InvalidFilterError):
        find_in_kitfile(KITFILE, path)
