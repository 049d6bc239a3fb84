import msgspec
import pytest

from kitd.errors import KitdError
from kitd.mirror.order import Conflicts, Deletes, MirrorOrder, Selection, TargetOrder
from kitd.mirror.route import (
    Route,
    expand_tag,
    parse_repository_part,
    parse_tag_target,
    parse_target,
)
from kitd.mirror.rule import Rule, literal_repositories, orders_for, rules_for
from kitd.oci.reference import MAX_NAME, parse_repository


def route(source, targets, repositories=()):
    ends = tuple(
        TargetOrder(repository=end) if isinstance(end, str) else end for end in targets.split()
    )
    return Route(source, tuple(repositories), ends)


def rule(name, *place, **given):
    return Rule(
        name=name,
        route=route(*place),
        **{
            "select": Selection(),
            "referrers": True,
            "digest_tags": True,
            "deletes": Deletes.IGNORE,
            "grace_s": 60.0,
            "conflicts": Conflicts.OVERWRITE,
            "schedule": None,
            **given,
        },
    )


@pytest.mark.parametrize(
    ("source", "repositories", "target", "repository", "expected"),
    [
        ("a.io/x", (), "b.io/y", "a.io/x", "b.io/y"),
        ("a.io/t/x", (), "b.io/{path}", "a.io/t/x", "b.io/t/x"),
        ("a.io/t/x", (), "b.io/m/{name}", "a.io/t/x", "b.io/m/x"),
        ("a.io/t", ["*"], "b.io/m", "a.io/t/x", "b.io/m/x"),
        ("a.io/t", ["**"], "b.io/m", "a.io/t/u/x", "b.io/m/u/x"),
        ("a.io/t", ["**"], "b.io", "a.io/t/u/x", "b.io/u/x"),
        ("a.io/t", ["**"], "b.io/m/{name}", "a.io/t/u/x", "b.io/m/x"),
        ("a.io/t", ["**"], "b.io/m-{path}/{name}", "a.io/t/u/x", "b.io/m-u/x/x"),
        ("a.io", ["**"], "b.io:5000/all", "a.io/t/u/x", "b.io:5000/all/t/u/x"),
        ("a.io", ["t/*"], "b.io/{path}", "a.io/t/t", "b.io/t/t"),
    ],
)
def test_a_repository_goes_to_its_place_at_the_target(
    source, repositories, target, repository, expected
):
    found = route(source, target, repositories)
    repository = parse_repository(repository)
    assert found.carries(repository)
    assert [order.repository for order in found.targets_of(repository)] == [expected]


@pytest.mark.parametrize(
    ("source", "repositories", "repository"),
    [
        ("a.io/x", (), "a.io/x/y"),
        ("a.io/x", (), "a.io/xy"),
        ("a.io/x", (), "b.io/x"),
        ("a.io/t", ["*"], "a.io/t"),
        ("a.io/t", ["*"], "a.io/t/u/x"),
        ("a.io/t", ["*"], "a.io/tt/x"),
        ("a.io/t", ["bert-*"], "a.io/t/llama"),
        ("a.io", ["*"], "a.io:5000/x"),
    ],
)
def test_other_repositories_are_not_carried(source, repositories, repository):
    assert not route(source, "z.io/z", repositories).carries(parse_repository(repository))


@pytest.mark.parametrize(
    ("source", "repositories", "expected"),
    [
        ("a.io/x", (), ["a.io/x"]),
        ("a.io/t", ["x", "u/y", "x"], ["a.io/t/x", "a.io/t/u/y"]),
        ("a.io/t", ["x", "y*"], None),
        ("a.io", ["**"], None),
    ],
)
def test_plain_names_need_no_catalog(source, repositories, expected):
    found = literal_repositories(rule("r", source, "z.io/z", repositories))
    assert found == (expected and tuple(map(parse_repository, expected)))


def test_a_change_concerns_the_rules_that_carry_it():
    rules = [
        rule("all", "a.io", "b.io", ["**"]),
        rule("team", "a.io/team", "c.io", ["bert-*"]),
        rule("one", "a.io/team/bert-x", "d.io/x"),
        rule("hub", "index.docker.io/team", "e.io", ["*"]),
    ]

    def concerned(registry, repository):
        return [found.name for found in rules_for(rules, registry, repository)]

    assert concerned("a.io", "team/bert-x") == ["all", "team", "one"]
    assert concerned("A.io", "team/other") == ["all"]
    assert concerned("docker.io", "team/x") == ["hub"]
    assert concerned("b.io", "team/bert-x") == []


@pytest.mark.parametrize(
    "name", ["", "/", "../x", "team/../x", "Team/x", "x:tag", "x@y", "x" * 300]
)
def test_what_is_no_repository_concerns_nobody(name):
    assert rules_for([rule("all", "a.io", "b.io", ["**"])], "a.io", name) == ()


def test_an_order_says_what_the_rule_says():
    given = rule(
        "prod",
        "a.io/t",
        "b.io/m",
        ["*"],
        select=Selection(newest=3),
        referrers=False,
        digest_tags=False,
        deletes=Deletes.PROPAGATE,
        conflicts=Conflicts.KEEP,
    )
    (order,) = orders_for(given, parse_repository("a.io/t/x"), [given], tags=("v1",))
    assert order == MirrorOrder(
        rule="prod",
        source="a.io/t/x",
        target=TargetOrder(repository="b.io/m/x"),
        tags=("v1",),
        select=Selection(newest=3),
        referrers=False,
        digest_tags=False,
        deletes=Deletes.PROPAGATE,
        grace_s=60.0,
        conflicts=Conflicts.KEEP,
    )
    assert msgspec.json.decode(msgspec.json.encode(order), type=MirrorOrder) == order


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (("b.io/m", "a.io/t", ["*"]), True),
        (("b.io/m/x", "c.io/z a.io/t/x"), True),
        (("b.io/m/y", "a.io/t/y"), False),
        (("b.io/m", "a.io/u", ["*"]), False),
        (("c.io/m", "a.io/t", ["*"]), False),
    ],
)
def test_an_order_says_whether_another_rule_carries_it_back(other, expected):
    there = rule("there", "a.io/t", "b.io/m", ["*"])
    rules = [there, rule("back", *other)]
    (order,) = orders_for(there, parse_repository("a.io/t/x"), rules)
    assert order.returns is expected
    assert not order.deletes_return


def test_an_order_says_whether_deletes_are_carried_back_too():
    there = rule("there", "a.io/x", "b.io/x")
    for deletes in Deletes:
        back = rule("back", "b.io/x", "a.io/x", deletes=deletes)
        (order,) = orders_for(there, parse_repository("a.io/x"), [there, back])
        assert order.deletes_return is (deletes is Deletes.PROPAGATE)


def test_an_order_spares_what_others_copy_to_the_same_tags():
    own = rule("own", "a.io/t", "b.io/m", ["*"], deletes=Deletes.PROPAGATE)
    archive = rule("archive", "a.io/t/x", "c.io/z b.io/m/x", select=Selection(include=("v*",)))
    others = [
        rule("elsewhere", "a.io/t/x", "b.io/n/x"),
        rule("other", "a.io/t/y", "b.io/m/x"),
        rule("removes", "a.io/t/x", "b.io/m/x", deletes=Deletes.PROPAGATE),
    ]
    (order,) = orders_for(own, parse_repository("a.io/t/x"), [own, archive, *others])
    assert order.spares == (archive.select,)


def test_a_name_too_long_for_a_target_is_left_to_the_job():
    """Names come from registries; one that is too long must not take the others with it."""
    long = parse_repository("a.io/" + "x" * 245)
    there = rule("there", "a.io", "b.example.com/prefix c.io", ["**"])
    back = rule("back", "c.io", "b.example.com/prefix a.io", ["**"])
    too_long, returning = orders_for(there, long, [there, back])

    assert len(too_long.target.repository) > MAX_NAME
    assert not too_long.returns
    assert returning.returns


@pytest.mark.parametrize(
    "text", ["b.io", "b.io:5000/x", "b.io/{path}", "b.io/a-{name}/{path}", "localhost:5000/x"]
)
def test_a_target_is_a_place_or_a_template(text):
    assert parse_target(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "team/x", "harbor", "localhost/x", "b.io/", "b.io/X", "b.io/x:v1", "b.io/{tag}",
     "b.io/{path", "b.io/x}", "{path}/x", "{name}.io/x", "b.io/{}", "b.io/{{path}}", "b.io//{path}",
     "b.io/{path}@", "https://b.io/x"],
)  # fmt: skip
def test_other_targets_are_refused(text):
    with pytest.raises(KitdError):
        parse_target(text)


@pytest.mark.parametrize("text", ["*", "**", "bert-*", "a/b", "*/x", "a**b"])
def test_a_repository_below_is_a_glob(text):
    assert parse_repository_part(text) == text


@pytest.mark.parametrize("text", ["", "/x", "x/", "A*", "[ab]", "a?", "../x", "***", "x:y", "a//*"])
def test_other_repositories_below_are_refused(text):
    with pytest.raises(KitdError):
        parse_repository_part(text)


def test_a_template_of_tags_has_the_tag_once():
    assert expand_tag(parse_tag_target("{tag}"), "v1") == "v1"
    assert expand_tag(parse_tag_target("eu-{tag}.x"), "v1") == "eu-v1.x"


@pytest.mark.parametrize(
    "text", ["", "latest", "{tag}{tag}", "-{tag}", "{tag}:x", "{name}-{tag}", "{tag}" + "x" * 128]
)
def test_other_templates_of_tags_are_refused(text):
    with pytest.raises(KitdError):
        parse_tag_target(text)


def test_however_a_repository_is_spelt_it_is_one():
    """What is remembered of a mirror, and at most one job of it, go by these names."""
    hub = rule("hub", "index.docker.io/team/x", f"{parse_target('Registry-1.Docker.io/copy')}")
    ((literal,), event) = literal_repositories(hub), parse_repository("Docker.io/team/x")
    assert literal == event
    (order,) = orders_for(hub, literal, [hub])
    assert (order.source, order.target.repository) == ("docker.io/team/x", "docker.io/copy")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INDEX.docker.io/{path}", "docker.io/{path}"),
        ("A.example:443/t/{name}", "a.example:443/t/{name}"),
        ("A.example", "a.example"),
    ],
)
def test_a_target_has_the_one_spelling_of_its_registry(text, expected):
    assert parse_target(text) == expected
