"""`projects.*`: what is watched."""

import re

import msgspec

from kitd.config.tag_template import parse_tag_template
from kitd.oci.reference import parse_tagged
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, method
from kitd.rpc.methods.access import (
    require_directory,
    require_kitfile,
    require_own_project,
    require_reachable,
)
from kitd.rpc.methods.idempotency import Idempotent
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Empty, Nothing, WireProject
from kitd.rpc.peer import Role

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Name(Params, frozen=True):
    """One project."""

    name: str


class OwnProject(Idempotent, frozen=True, kw_only=True):
    """One project, to be changed."""

    name: str


class NewProject(Idempotent, frozen=True, kw_only=True):
    """A project to be watched; `reference` may bring tags along."""

    name: str
    path: str
    reference: str
    tags: tuple[str, ...] = ()
    push: bool = True
    kitfile: str | None = None


class ProjectList(msgspec.Struct, frozen=True):
    """All projects, by name."""

    projects: tuple[WireProject, ...]


async def list_projects(context: Context[Services], params: Nothing) -> ProjectList:
    """List the projects and what they are doing."""
    return ProjectList(tuple(await context.services.projects.list()))


async def get(context: Context[Services], params: Name) -> WireProject:
    """Show one project."""
    return await context.services.projects.get(params.name)


async def add(context: Context[Services], params: NewProject) -> WireProject:
    """Watch a project from now on."""
    if _NAME.fullmatch(params.name) is None:
        raise InvalidParamsError(
            f"{params.name[:80]!r} is not a project's name",
            hint="lower-case letters, digits, '.', '_' and '-', at most 64",
        )
    reference, more = parse_tagged(params.reference)
    named = () if reference.tag is None else (reference.tag,)
    tags = tuple(dict.fromkeys((*named, *more, *params.tags))) or ("latest",)
    for tag in tags:
        parse_tag_template(tag)
    if params.push:
        require_reachable(context, reference.repository)
    return await context.services.projects.add(
        params.name,
        path=params.path,
        kitfile=require_kitfile(context, params.kitfile),
        repository=reference.repository,
        tags=tags,
        push=params.push,
        reader=await require_directory(context, params.path),
    )


async def remove(context: Context[Services], params: OwnProject) -> Empty:
    """Stop watching a project; its kits stay."""
    await require_own_project(context, params.name)
    await context.services.projects.remove(params.name)
    return Empty()


async def rescan(context: Context[Services], params: OwnProject) -> Empty:
    """Look at a project now."""
    await require_own_project(context, params.name)
    context.services.projects.rescan(params.name)
    return Empty()


async def hold(context: Context[Services], params: OwnProject) -> WireProject:
    """Pack nothing of a project until it is released."""
    await require_own_project(context, params.name)
    return await context.services.projects.hold(params.name)


async def release(context: Context[Services], params: OwnProject) -> WireProject:
    """End a hold."""
    await require_own_project(context, params.name)
    return await context.services.projects.release(params.name)


METHODS: tuple[Method[Services], ...] = (
    method("projects.list", Role.READ, Nothing, ProjectList, list_projects, cost=Cost.LEDGER),
    method("projects.get", Role.READ, Name, WireProject, get),
    method("projects.add", Role.SUBMIT, NewProject, WireProject, add, takes_descriptor=True),
    method("projects.remove", Role.SUBMIT, OwnProject, Empty, remove),
    method("projects.rescan", Role.SUBMIT, OwnProject, Empty, rescan),
    method("projects.hold", Role.SUBMIT, OwnProject, WireProject, hold),
    method("projects.release", Role.SUBMIT, OwnProject, WireProject, release),
)
