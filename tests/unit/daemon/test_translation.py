from kitd.config.parse import parse_config
from kitd.config.places import Place, Places
from kitd.daemon.translation import mirror_rules
from kitd.mirror.order import Conflicts, Deletes, Selection, TargetOrder
from kitd.mirror.route import Route
from kitd.mirror.rule import Rule
from kitd.mirror.schedule import Interval

PLACES = Places(
    config=Place("/etc/kitd/kitd.yaml", is_explicit=False),
    state_dir=Place("/var/lib/kitd", is_explicit=False),
    socket=Place("/run/kitd/kitd.sock", is_explicit=False),
    home=None,
)
MIRRORS = b"""
mirrors:
  all:
    source: a.example/t
    repositories: ["*"]
    targets: [{repository: "b.example/{path}", tag: "eu-{tag}"}]
    tags: {include: ["v*"], exclude: ["*-dev"], regex: "v.+", semver: "1.x", newest: 5, max_age: 1h}
    referrers: false
    digest_tags: false
    deletes: propagate
    grace: 2h
    conflicts: keep
    schedule: 90s
  plain: {source: a.example/x, targets: [b.example/x]}
  back: {source: b.example/x, targets: [a.example/x]}
"""


def test_mirrors_become_rules():
    full, plain, back = mirror_rules(parse_config(MIRRORS, source="f", places=PLACES))
    assert full == Rule(
        name="all",
        route=Route(
            "a.example/t", ("*",), (TargetOrder(repository="b.example/{path}", tag="eu-{tag}"),)
        ),
        select=Selection(
            include=("v*",),
            exclude=("*-dev",),
            regex="v.+",
            semver="1.x",
            newest=5,
            max_age_s=3600.0,
        ),
        referrers=False,
        digest_tags=False,
        deletes=Deletes.PROPAGATE,
        grace_s=7200.0,
        conflicts=Conflicts.KEEP,
        schedule=Interval(90.0),
    )
    assert plain == Rule(
        name="plain",
        route=Route("a.example/x", (), (TargetOrder(repository="b.example/x"),)),
        select=Selection(),
        referrers=True,
        digest_tags=True,
        deletes=Deletes.IGNORE,
        grace_s=86_400.0,
        conflicts=Conflicts.OVERWRITE,
        schedule=None,
    )
    assert (back.name, back.conflicts) == ("back", Conflicts.KEEP)


def test_no_mirrors_are_no_rules():
    assert mirror_rules(parse_config(b"", source="f", places=PLACES)) == ()
