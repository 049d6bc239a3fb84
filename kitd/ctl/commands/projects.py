"""`kitctl projects …`: what is watched."""

import os

from kitd.client import request
from kitd.client.reference import split_tags
from kitd.ctl.error import UsageError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import printable
from kitd.ctl.project_table import project_lines
from kitd.ctl.session import Session


def list_projects(session: Session) -> int:
    """Show all projects."""
    with session.connect() as client:
        projects = client.call(request.list_projects())
    lines = project_lines(session, projects)
    session.terminal.show([project.document for project in projects], "\n".join(lines))
    return ExitCode.DONE


def add_project(
    session: Session,
    *,
    name: str,
    path: str,
    tag: str,
    kitfile: str | None,
    push: bool,
    no_push: bool,
) -> int:
    """Watch a directory from now on."""
    if push and no_push:
        raise UsageError("--push and --no-push exclude each other")
    reference, tags = split_tags(tag)
    asked = request.add_project(
        name,
        os.path.abspath(path),
        reference,
        tags=tags or None,
        push=push if push or no_push else None,
        kitfile=kitfile,
    )
    with session.connect() as client:
        project = client.call(asked)
    text = f"watching {printable(project.path)} as {printable(project.name)}"
    session.terminal.show(project.document, text)
    return ExitCode.DONE


def remove_project(session: Session, *, name: str) -> int:
    """Watch a project no longer."""
    with session.connect() as client:
        client.call(request.remove_project(name))
    session.terminal.show({"name": name}, f"{name} is watched no longer; its kits stay")
    return ExitCode.DONE


def rescan_project(session: Session, *, name: str) -> int:
    """Look at a project's files now."""
    with session.connect() as client:
        client.call(request.rescan_project(name))
    session.terminal.show({"name": name}, f"{name} will be looked at now")
    return ExitCode.DONE


def hold_project(session: Session, *, name: str) -> int:
    """Pack a project no more until it is released."""
    with session.connect() as client:
        project = client.call(request.hold_project(name))
    text = f"{name} is {printable(project.state)}; go on with: kitctl projects release {name}"
    session.terminal.show(project.document, text)
    return ExitCode.DONE


def release_project(session: Session, *, name: str) -> int:
    """Let a held project be packed again."""
    with session.connect() as client:
        project = client.call(request.release_project(name))
    session.terminal.show(project.document, f"{name} is {printable(project.state)}")
    return ExitCode.DONE
