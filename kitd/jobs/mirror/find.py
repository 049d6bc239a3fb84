"""Which tags of the source are meant, and what they name now."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence

from kitd.blocking import run_blocking
from kitd.content.store import ContentNotFoundError
from kitd.content.together import all_of
from kitd.errors import Disposition, KitdError
from kitd.jobs.mirror.attempt import Attempt, in_parts
from kitd.jobs.mirror.source import PullsSpentError
from kitd.mirror.decide import digest_tags, subject_of
from kitd.mirror.edge import Eased
from kitd.mirror.order import Selection
from kitd.mirror.select import admits, needs_ages, select
from kitd.oci.digest import Digest
from kitd.oci.reference import Reference

BATCH = 500
"""Tags that are looked at, and copied, before the next are: memory is for so many."""
FEW = 3
"""Of more manifests than that it is not asked what is about each, but for all that there is."""


class Finder:
    """Finds the tags of a source that an order means.

    `gone` are those that it means and the source lacks. `is_absent` says that there is no such
    repository any more, of which nothing follows for those that were copied.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.gone: set[str] = set()
        self.is_absent = False
        self._unsure = False
        """Whether a tag could not be asked for that may be there."""
        self._attempt = attempt
        self._order = attempt.order
        self._source = attempt.source
        self._companions: dict[Digest, list[str]] = {}
        """Digest tags by what they are about, as far as they were not found yet."""
        self._known: dict[str, Digest | None] = {}
        """What tags named when their ages were looked for, None where that did not work out."""

    async def names(self) -> Sequence[str]:
        """Return the tags that are meant, whether they are there or not, but for digest tags.

        Raises what the registry raises where nothing can be told without its answer.
        """
        order, asked = self._order, self._order.tags
        # What is among the newest shows beside the others.
        ranks = order.select.newest is not None or order.select.max_age_s is not None
        if (asked is None and not order.manifests) or (ranks and asked):
            await self._list()
        meant = sorted((self._source.listed or ()) if asked is None else asked)
        if order.digest_tags:
            self._sort_out(meant)
        admitted = await run_blocking(_admitted, order.select, meant)
        return await self._newest(admitted) if ranks else admitted

    async def batches(self, names: Sequence[str]) -> AsyncIterator[Mapping[str, Digest]]:
        """Yield what tags name, so many at a time, and the digest tags that are about those."""
        for batch in in_parts(names, BATCH):
            found = await self._resolve(batch)
            missing = self.gone.intersection(self._order.tags or ())
            if missing and self._order.rule is None:
                # Whoever names a tag wants that one, and not whatever there is.
                gone = Reference(self._source.repository, min(missing))
                raise ContentNotFoundError(f"there is no {gone}", hint="correct the tag")
            yield found
        # What is about manifests that were copied before, or belong to one that was.
        for subjects in in_parts(list(self._companions), BATCH):
            yield await self._resolve(await self._about_agreed(subjects))

    async def about(self, manifests: Collection[Digest]) -> Mapping[str, Digest]:
        """Return the digest tags that are about manifests, which are copied now."""
        if not self._order.digest_tags or not manifests:
            return {}
        if self._source.listed is None and len(manifests) > FEW:
            try:
                self._sort_out(await self._list())
            except KitdError as error:
                if error.disposition in (Disposition.FATAL, Disposition.PAUSE):
                    raise
                # Who does not list them may still have them.
                if error.disposition is not Disposition.FAIL:
                    await self._attempt.report.fail(error, ())
        if self._source.listed is None:
            names = (tag for digest in manifests for tag in digest_tags(digest))
            return await self._resolve(dict.fromkeys(names))
        tags = [tag for digest in manifests for tag in self._companions.pop(digest, ())]
        return await self._resolve(dict.fromkeys(tags))

    async def ease(self, names: Collection[str]) -> None:
        """Note of tags that are not meant, or not any more, that there is nothing to be done."""
        meant = set(names)
        asked = self._order.tags or self._source.listed or ()
        left = {tag for tags in self._companions.values() for tag in tags}
        for (tag, _), memory in self._attempt.target.memory.items():
            is_meant = tag not in left if subject_of(tag) else tag in meant
            if memory.has_failed and not is_meant and tag in asked:
                await self._attempt.report.note(Eased(self._attempt.target.edge(tag)))

    def _sort_out(self, tags: Iterable[str]) -> None:
        """Note which of some tags are digest tags."""
        for tag in tags:
            subject = subject_of(tag)
            if subject is not None and subject[1]:
                self._companions.setdefault(subject[0], []).append(tag)

    async def _about_agreed(self, subjects: Collection[Digest]) -> list[str]:
        source, target = self._source.repository, self._attempt.target.repository
        agreed = await self._attempt.memory.agreed_among(source, target, subjects)
        return [tag for digest in sorted(agreed) for tag in self._companions.pop(digest, ())]

    async def _list(self) -> Collection[str]:
        try:
            return await self._source.list_tags()
        except ContentNotFoundError:
            if self._order.tags is None and not self._attempt.target.memory:
                raise
            # It was there once: whatever has happened to it is no reason to empty its mirrors.
            self._attempt.report.remark(
                f"{self._source.repository} is not there: nothing is removed"
            )
            self.is_absent = True
            return ()

    async def _newest(self, tags: Sequence[str]) -> list[str]:
        """Return those of `tags` that are new enough among all that are admitted."""
        select_by = self._order.select
        listed = await run_blocking(_admitted, select_by, tuple(self._source.listed or ()))
        made_us: dict[str, int | None] = dict.fromkeys(listed)
        if needs_ages(select_by):
            for part in in_parts(listed, BATCH):
                digests = await self._resolve(part)
                ages = await self._ages(set(digests.values()))
                made_us |= {tag: ages.get(digest) for tag, digest in digests.items()}
                self._known |= {tag: digests.get(tag) for tag in part}
        if self._unsure:
            # The newest may be among those that could not be asked for.
            return [tag for tag in tags if tag not in made_us]
        now_us = self._attempt.now_us()
        chosen = set(await run_blocking(select, select_by, made_us, now_us))
        # What is gone is not among them, and has to be noted as that.
        return [tag for tag in tags if tag in chosen or tag not in made_us]

    async def _ages(self, digests: set[Digest]) -> Mapping[Digest, int | None]:
        """Return when manifests were made; those that are new are read for it."""
        memory = self._attempt.memory
        known = await memory.ages(digests)
        learned: dict[Digest, int | None] = {}
        spent: list[PullsSpentError] = []

        async def learn(digest: Digest) -> None:
            async with self._attempt.looks:
                try:
                    learned[digest] = await self._source.made_us(digest)
                except PullsSpentError as error:
                    # Those that are being read are paid for.
                    spent.append(error)
                except KitdError as error:
                    # What cannot be read is as old as what does not say it.
                    if error.disposition is not Disposition.FAIL:
                        raise

        try:
            await all_of(learn(digest) for digest in digests - known.keys())
        finally:
            # What was read is not read again, whatever became of the others.
            if learned and not self._order.wish.dry_run:
                await memory.learn_ages(learned)
        if spent:
            raise spent[0]
        return {**known, **learned}

    async def _resolve(self, tags: Iterable[str]) -> dict[str, Digest]:
        """Return what tags name; those that are gone are noted as that."""
        found: dict[str, Digest] = {}

        async def resolve(tag: str) -> None:
            if tag in self._known:
                known = self._known[tag]
                if known is not None:
                    found[tag] = known
                return
            edge = self._attempt.target.edge(tag)
            digest = await self._attempt.report.guarded(self._look(tag), (edge,))
            if digest is not None:
                found[tag] = digest

        await all_of(resolve(tag) for tag in tags)
        return found

    async def _look(self, tag: str) -> Digest | None:
        is_new = self._attempt.target.recall(tag) is None
        async with self._attempt.looks:
            try:
                return await self._source.look(
                    tag, to_copy=is_new and not needs_ages(self._order.select)
                )
            except ContentNotFoundError:
                self.gone.add(tag)
                return None
            except KitdError as error:
                if error.disposition is not Disposition.FAIL:
                    self._unsure = True
                raise


def _admitted(selection: Selection, tags: Sequence[str]) -> list[str]:
    return [tag for tag in tags if admits(selection, tag)]
