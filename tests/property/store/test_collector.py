"""What the cache promises whatever happens, in whatever order: a real ledger, real files."""

import asyncio
import json
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kitd.clock import SystemClock
from kitd.config.model import CacheConfig
from kitd.content.store import ContentNotFoundError
from kitd.daemon.collector import Collector
from kitd.errors import UnavailableError
from kitd.jobs.push import PUSH, PushArgs
from kitd.ledger.cache_ledger import CacheLedger
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.job_ledger import JobLedger
from kitd.oci.descriptor import describe
from kitd.oci.manifest import parse_manifest
from kitd.oci.media_type import OCI_INDEX, OCI_MANIFEST
from kitd.oci.reference import Reference, Repository
from kitd.queue.effect import MoveTags, RecordLocation, RecordManifest
from kitd.queue.job import Lane
from kitd.store.blob_store import BlobStore
from kitd.store.collection import excess_bytes, may_go
from kitd.store.content import CacheContent
from kitd.store.lease import LeaseBook

HERE = Repository("localhost", "team/model")
THERE = Repository("registry.example.com", "team/model")
LAYERS = tuple(describe("layer", bytes([65 + n]) * 1000 * (n + 1)) for n in range(5))
CONTENTS = {layer.digest: bytes([65 + n]) * 1000 * (n + 1) for n, layer in enumerate(LAYERS)}
CONFIG = b"{}"
TAGS = ("a", "b", "c")
HOURS = 2 * 3600
NUMBERS = st.integers(0, 9)
SHAPES = ("plain", "plain", "index", "referrer")
KITS = st.tuples(st.sets(st.sampled_from(range(5)), max_size=3), NUMBERS, st.sampled_from(SHAPES))
NAMES = st.tuples(st.sets(st.sampled_from(TAGS), max_size=2), st.booleans())
"""Tags, and whether it came from the registry."""


def push_of(kit):
    args = PushArgs(source=str(HERE), digest=kit.digest, target=str(THERE), tags=())
    return PUSH.request(args)


def document(layers, *, index_of=None, subject=None, salt=0):
    """Return a manifest over layers, or an index of another manifest."""
    head = {"schemaVersion": 2, "annotations": {"salt": str(salt)}}
    if index_of is not None:
        media_type = OCI_INDEX
        children = [{"mediaType": OCI_MANIFEST, "digest": index_of.digest, "size": index_of.size}]
        body = {"manifests": children}
    else:
        media_type = OCI_MANIFEST
        config = describe("config", CONFIG)
        body = {
            "config": {"mediaType": "config", "digest": config.digest, "size": config.size},
            "layers": [
                {"mediaType": "layer", "digest": layer.digest, "size": layer.size}
                for layer in layers
            ],
        }
        if subject is not None:
            named = {"mediaType": OCI_MANIFEST, "digest": subject.digest, "size": subject.size}
            body["subject"] = named
    content = json.dumps({**head, "mediaType": media_type, **body}).encode()
    return describe(media_type, content), content


class Killed(BaseException):
    """kitd died here."""


class MortalStore(BlobStore):
    """A store whose process may die before it removes a blob."""

    lives = None

    def remove(self, digest, *, unless_after_s=float("inf")):
        if self.lives is not None:
            if self.lives == 0:
                raise Killed
            self.lives -= 1
        return super().remove(digest, unless_after_s=unless_after_s)


class Cache(RuleBasedStateMachine):
    """A cache that packs, pulls, pushes, people and collections work on, and that crashes."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="kitd-cache-"))
        self.held_there = set()
        self.away = False
        self.meanwhile = None
        self.salt = 0
        self.limits = CacheConfig(use_at_most_bytes=0, leave_free_bytes=0, keep_recent_s=0)
        self.open()

    def open(self):
        self.database = Database(self.directory / "ledger.sqlite3")
        self.runner.run(self.database.__aenter__())
        clock = SystemClock()
        self.store = MortalStore(self.directory / "cache")
        self.store.create()
        self.leases = LeaseBook()
        self.content = CacheContent(self.store, self.leases)
        self.ledger = CacheLedger(self.database, clock)
        self.catalog = Catalog(self.database, clock, no_kit, used=self.ledger.note_use)
        self.jobs = JobLedger(self.database, clock, epoch=1)
        self.arrivals = []
        self.collector = Collector(
            store=self.store,
            leases=self.leases,
            ledger=self.ledger,
            remote=self.remote,
            limits=lambda: self.limits,
            clock=clock,
        )

    def teardown(self):
        self.runner.run(self.database.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    # The registry.

    async def remote(self, _repository):
        return self

    async def exists(self, target):
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        if self.away:
            raise UnavailableError("the registry is away")
        return target.digest in self.held_there

    # What is there.

    def sql(self, statement, *parameters):
        path = self.directory / "ledger.sqlite3"
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("PRAGMA foreign_keys = ON")
            return connection.execute(statement, parameters).fetchall()

    def kits(self):
        return {kit.digest: kit for kit in self.runner.run(self.ledger.kits())}

    def pick(self, number):
        kits = sorted(self.kits().values(), key=lambda kit: kit.digest)
        return kits[number % len(kits)] if kits else None

    def protected(self, kits):
        """Return the kits that no collection may take, by the plainest reading of the rules."""
        leased = self.leases.leased()
        return {
            digest
            for digest, kit in kits.items()
            if digest in leased
            or kit.pinned_as
            or kit.needed_by
            or kit.project
            or (kit.tags and digest not in self.held_there)
            or (kit.tags and self.away)
        }

    # Arrivals: blobs first, the manifest later, and anything in between.

    @initialize(kits=st.lists(st.tuples(KITS, NAMES), min_size=3, max_size=5))
    def begin(self, kits):
        for kit, names in kits:
            self.arrive(kit, names)

    @rule(kit=KITS, names=NAMES)
    def arrive(self, kit, names):
        self.begin_arrival(kit)
        self.end_arrival(len(self.arrivals) - 1, names)

    @rule(kit=KITS)
    def begin_arrival(self, kit):
        layers, number, shape = kit
        self.salt += 1
        below = self.pick(number)
        chosen = [LAYERS[number] for number in sorted(layers)]
        target, content = document(
            chosen,
            index_of=below.target if below and shape == "index" else None,
            subject=below.target if below and shape == "referrer" else None,
            salt=self.salt % 8,
        )
        held = self.content.hold()

        async def begin():
            for layer in chosen:
                await held.put(CONTENTS[layer.digest])
            await held.put(CONFIG)
            if below is not None:
                await held.keep([(below.digest, below.target.size)])

        self.runner.run(begin())
        self.arrivals.append((held, target, content))

    @precondition(lambda self: self.arrivals)
    @rule(number=NUMBERS, names=NAMES)
    def end_arrival(self, number, names):
        tags, pulled = names
        held, target, content = self.arrivals.pop(number % len(self.arrivals))
        manifest = parse_manifest(content)

        async def end():
            known = {kit.digest for kit in await self.ledger.kits()}
            if any(child.digest not in known for child in manifest.manifests):
                # It was removed by hand.
                return
            assert await held.keep([(child.digest, child.size) for child in manifest.children])
            await held.put(content)
            effects = [
                RecordManifest(HERE, target, manifest),
                MoveTags(HERE, tuple(sorted(tags)), target.digest),
            ]
            if pulled:
                effects.append(RecordLocation(target.digest, THERE))
                self.held_there.add(target.digest)
            await self.catalog.apply(effects)

        self.runner.run(end())
        held.release()

    @precondition(lambda self: self.arrivals)
    @rule(number=NUMBERS)
    def give_arrival_up(self, number):
        held, _, _ = self.arrivals.pop(number % len(self.arrivals))
        held.release()

    # What people and jobs do.

    @rule(
        number=NUMBERS, what=st.sampled_from(["push", "lose", "remove", "pin", "unpin", "project"])
    )
    def happen(self, number, what):
        kit = self.pick(number)
        if kit is None or not kit.repositories:
            return
        pinned = Reference(HERE, digest=kit.digest)
        with suppress(ContentNotFoundError):
            match what:
                case "push":
                    self.held_there.add(kit.digest)
                    self.runner.run(self.catalog.apply([RecordLocation(kit.digest, THERE)]))
                case "lose":
                    self.held_there.discard(kit.digest)
                case "remove":
                    self.runner.run(self.catalog.remove(HERE, kit.digest))
                case "pin":
                    self.runner.run(self.ledger.pin(pinned))
                case "unpin":
                    self.runner.run(self.ledger.unpin(pinned))
                case _:
                    self.sql(
                        "INSERT INTO projects (name, source, definition, defined_us, digest)"
                        " VALUES ('demo', 'added', '{}', 0, ?1)"
                        " ON CONFLICT DO UPDATE SET digest = ?1",
                        kit.digest,
                    )

    @rule(away=st.booleans())
    def registry_comes_and_goes(self, away):
        self.away = away

    @rule(number=NUMBERS)
    def wait_for_a_push(self, number):
        if (kit := self.pick(number)) is not None:
            self.runner.run(self.jobs.enqueue(push_of(kit)))

    @rule()
    def end_pushes(self):
        async def end():
            for job in await self.jobs.claim({Lane.PUSH: 5}):
                await self.jobs.succeed(job, b"{}", (), ())

        self.runner.run(end())

    @rule(tag=st.sampled_from(TAGS))
    def untag(self, tag):
        with suppress(ContentNotFoundError):
            self.runner.run(self.catalog.untag(HERE, tag))

    @rule()
    def hours_pass(self):
        self.sql("UPDATE manifests SET used_us = used_us - ?", HOURS * 1_000_000)
        for blob in self.store.blobs():
            os.utime(self.store.path_of(blob.digest), (blob.written_s - HOURS,) * 2)

    @rule(
        use_at_most=st.sampled_from([0, 0, 3000, 6000]),
        keep=st.sampled_from([0, 0, 2000]),
        recent_s=st.sampled_from([0.0, 0.0, 600.0]),
    )
    def set_limits(self, use_at_most, keep, recent_s):
        self.limits = CacheConfig(
            use_at_most_bytes=use_at_most,
            keep_at_least_bytes=keep,
            leave_free_bytes=0,
            keep_recent_s=recent_s,
        )

    # Collections.

    def collect(self):
        return self.runner.run(self.collector.collect(lambda _: None))

    @rule()
    def collect_alone(self):
        before = self.kits()
        spared = self.protected(before)
        used_before = self.runner.run(self.collector._space()).used_bytes
        forecast = self.runner.run(self.collector.forecast())
        collected = self.collect()
        after = self.kits()
        assert spared <= after.keys()
        space = self.runner.run(self.collector._space())
        assert collected.kept_bytes == space.used_bytes
        assert collected.freed_bytes == used_before - space.used_bytes
        assert collected.over_bytes == excess_bytes(space, self.limits)
        gone = before.keys() - after.keys()
        event(f"{len(gone)} kits go")
        if gone:
            assert space.used_bytes >= self.limits.keep_at_least_bytes
        # Where all is held that is said to be, what is foreseen is what happens.
        if not self.away and all(
            kit.digest in self.held_there for kit in before.values() if kit.locations
        ):
            foreseen = {d.digest for d in forecast.decisions if d.goes and d.kind == "kit"}
            assert foreseen == gone
            assert forecast.freed_bytes == collected.freed_bytes
            assert self.collect().freed_bytes == 0
        if not excess_bytes(space, self.limits):
            return
        left = self.runner.run(self.collector.forecast())
        for decision in left.decisions:
            if decision.kind == "kit" and decision.goes:
                kit = after[decision.digest]
                held = kit.digest in self.held_there and not self.away
                if any(kit.digest in {c.digest for c in each.children} for each in after.values()):
                    # It goes with the index that lists it, or not at all.
                    continue
                assert kit.locations, decision
                assert not held or not may_go(space, self.limits, kit.target.size), decision

    @rule(number=NUMBERS, what=st.sampled_from(["pin", "use", "tag", "need", "lease", "share"]))
    def collect_while_somebody_comes(self, number, what):
        """A registry is asked, and while it thinks the kit becomes wanted."""
        kit = self.pick(number)
        if kit is None or not kit.repositories:
            return
        held = self.content.hold()
        wanted = []

        async def come():
            if kit.digest not in {each.digest for each in await self.ledger.kits()}:
                return
            if what == "pin":
                await self.ledger.pin(Reference(HERE, digest=kit.digest))
            elif what == "use":
                await self.catalog.resolve(HERE, kit.digest)
            elif what == "tag":
                self.held_there.discard(kit.digest)
                await self.catalog.apply([MoveTags(HERE, ("d",), kit.digest)])
            elif what == "share":
                # Another kit of the same layers: this one may go all the same, and not its blobs.
                layers = [layer for layer in kit.children if layer.media_type == "layer"]
                target, content = document(layers, salt="shared")
                with self.content.hold() as other:
                    await other.put(CONFIG)
                    if await other.keep([(layer.digest, layer.size) for layer in layers]):
                        await other.put(content)
                        recorded = RecordManifest(HERE, target, parse_manifest(content))
                        await self.catalog.apply([recorded])
                return
            elif what == "need":
                await self.jobs.enqueue(push_of(kit))
            else:
                await held.keep([(kit.digest, kit.target.size)])
            wanted.append(kit.digest)

        self.meanwhile = come
        self.collect()
        self.meanwhile = None
        assert set(wanted) <= self.kits().keys()
        held.release()

    @rule(lives=st.integers(0, 6))
    def die_in_a_collection(self, lives):
        spared = self.protected(self.kits())
        self.store.lives = lives
        with suppress(Killed):
            self.collect()
        self.crash()
        assert spared - self.leases.leased() <= self.kits().keys()

    @rule()
    def crash(self):
        """The process ends: leases, promises and arrivals are gone, files and rows are not."""
        self.runner.run(self.database.close())
        self.open()

    # What is always so.

    @invariant()
    def every_kit_is_complete(self):
        for kit in self.kits().values():
            for blob in kit.blobs:
                assert self.store.has(blob), (kit.name, blob.digest)

    @invariant()
    def every_tag_names_a_kit(self):
        dangling = self.sql(
            "SELECT tag FROM tags WHERE digest NOT IN (SELECT digest FROM manifests)"
        )
        assert dangling == []

    @invariant()
    def nobody_waits_for_a_collection_that_ended(self):
        assert not self.leases._condemned

    @invariant()
    def what_was_kept_for_an_arrival_is_there(self):
        for held, _, content in self.arrivals:
            if b'"layers"' in content:
                for layer in parse_manifest(content).layers:
                    assert layer.digest in held._lease._digests
                    assert self.store.has(layer)


async def no_kit(_manifest):
    return None


TestCache = Cache.TestCase
TestCache.settings = settings(max_examples=25, stateful_step_count=25)
