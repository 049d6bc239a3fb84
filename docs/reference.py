"""Writes the reference pages that follow from the code: `make docs`.

`docs/errors.md` from the error classes, `docs/rpc.md` from the methods, `docs/commands.md` from the
table of commands, `docs/events.md` from that of events, `docs/logs.md` from the calls of `log` and
`docs/log-events.yaml`, the table in `docs/metrics.md` from the catalogue. A test compares the pages
with what this would write.
"""

import ast
import contextlib
import importlib
import inspect
import io
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

import kitd
from kitd import __version__
from kitd.__main__ import main as run_kitd
from kitd.ctl.command import COMMANDS, Argument, Command
from kitd.ctl.command_line import GLOBAL_OPTIONS
from kitd.errors import KitdError
from kitd.jobs.assembly import PackResult
from kitd.jobs.import_kit import ImportResult
from kitd.jobs.mirror.report import MirrorResult
from kitd.jobs.port import Collected, Verified
from kitd.jobs.survey import SurveyResult
from kitd.jobs.transfer import TransferResult
from kitd.ledger.event_type import EVENT_TYPES, EventType
from kitd.metrics.catalogue import CATALOGUE
from kitd.rpc.error import FAILED, NUMBERS
from kitd.rpc.methods import METHODS
from kitd.rpc.openrpc import openrpc_document

HERE = Path(__file__).parent
KITD = HERE.parent / "kitd"

ERRORS = """\
# Error codes

Every error that can reach a person has a code that does not change, a message that says what failed
on which thing and why, and where possible a hint that says what to do next. `kitctl` prints them as
`kitctl: message (hint)`; with `--json` also as `{"error": {"code", "message", "hint"}}`; on the
socket they are JSON-RPC errors whose `data.code` is the code below.

*Then* says what the queue does with a job that ended this way: **fail** (the input or the
configuration has to change), **retry** (with growing pauses; where a registry said for how long it
wants no requests, after that, without counting the attempt), **snooze** (again soon, without
counting the attempt), **step_aside** (it is over without an error, because somebody else sees to
what follows: the project's watcher), **pause** (nothing new begins until the disk has room again,
and the attempt does not count), **crash** (as retry, but the third time in a row the job is set
aside: it has failed with the code `poison`, and `kitctl jobs retry` lets it run again), or
**fatal** (kitd ends, and finds out at its next start what is durable).

`kitctl` exits with 0 (done), 1 (failed), 2 (`usage`), 3 (`denied`), 4 (`daemon_unreachable`),
5 (`timeout`) or 130 (`interrupted`); the exit codes of `kitd` are in [systemd.md](systemd.md).

| code | what happened | then |
|---|---|---|
"""

RPC = """\
# The socket, for programs

JSON-RPC 2.0 over a Unix stream socket, one JSON object a line, UTF-8. Requests have at most 1 MiB,
batches at most 64 calls, parameters are objects. Where the socket is: see
[configuration.md](configuration.md). Try it:

```console
$ socket="${KITD_SOCKET:-$XDG_RUNTIME_DIR/kitd/kitd.sock}"
$ test -S "$socket" || socket=/run/kitd/kitd.sock
$ echo '{"jsonrpc":"2.0","id":1,"method":"system.ping"}' | nc -U -q1 "$socket"
{"jsonrpc":"2.0","id":1,"result":{}}
```

`system.discover` returns this page as an OpenRPC document.

**Who may call.** The kernel says who connects. The daemon's own user and root are `admin`;
`rpc.access` gives others `read`, `submit` or `admin`. A role may call what the lower roles may.
What callers who are no admins may ask for beyond that is in [security.md](security.md).

**Repeating calls.** Every method that changes something takes an `idempotency_key` of up to 200
characters. For 24 hours the same key with the same parameters gets the same answer or job, with
others the error `idempotency_mismatch`. Keys are each user's own; what failed can be repeated.

**Events.** `events.subscribe` answers with a number; after it come `events.event` notifications
`{subscription, event}`: first those after `from_seq`, then each as it happens, in order and without
a gap. `$/progress` `{job, phase, bytes, total}` tells how far a running job is, at most four times
a second. `$/heartbeat` `{head_seq}` comes every 15 seconds. Whoever reads too slowly gets
`events.lagged` `{subscription, last_seq}` and goes on from there with a new subscription.

**File descriptors.** `kits.open` sends the descriptors of layers along with the first byte of its
response (`SCM_RIGHTS`), in the order they were asked for. They are those of files, read-only. Where
`kits.plan` says that a layer is `elsewhere`, it is a socket from which the layer can be read once
while kitd fetches it: ask for it when it is its turn. It comes in frames: four bytes of length,
most significant first, and so many bytes. After a length of zero comes a JSON object until the end:
empty if all was sent, else an error with `code`, `message` and `hint`.

`kits.pack` and `projects.add` take one with the request: that of the directory that `path` names,
opened to be read, as proof that the caller can. Send it with the first byte of the line, in one
`sendmsg` with nothing after the line. One is kept; more than four at once end the connection.

**Results.** The `result` of a job that succeeded is a `PackResult` for pack, an `ImportResult` for
import, a `TransferResult` for push and pull, `MirrorResult` for mirror, `SurveyResult` for survey,
`Collected` for collect, `Verified` for verify. A mirror that failed, or that will be tried again,
has one too: what its last attempt made of each tag. `followed_by` names the jobs that its end asked
for, such as the push after a pack.

**Cancelling.** `$/cancelRequest` `{id}` takes back a call, not the job that it started; that is
`jobs.cancel`.
"""


def error_classes() -> Iterator[type[KitdError]]:
    """Return every error class that has a code of its own."""
    for module in pkgutil.walk_packages(kitd.__path__, "kitd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    pending = list(KitdError.__subclasses__())
    while pending:
        current = pending.pop()
        pending += current.__subclasses__()
        ours = current.__module__.startswith("kitd.")
        if ours and isinstance(vars(current).get("code"), str):
            yield current


def errors_page() -> str:
    """Return docs/errors.md."""
    meanings: dict[str, dict[str, str]] = {}
    for error in error_classes():
        text = (inspect.getdoc(error) or "").partition("\n\n")[0].replace("\n", " ")
        meanings.setdefault(error.code, {})[text] = str(error.disposition)
    rows = [
        f"| `{code}` | {' '.join(sorted(texts))} | {', '.join(sorted(set(texts.values())))} |\n"
        for code, texts in sorted(meanings.items())
    ]
    return ERRORS + "".join(rows)


def shown(name: str) -> str:
    """Return a type's name as the page has it."""
    return name.rpartition(".")[2].removeprefix("Wire")


def type_of(schema: Mapping[str, Any]) -> str:
    """Return a JSON schema as a person writes a type."""
    if "$ref" in schema:
        return shown(str(schema["$ref"]).rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(type_of(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def fields(schema: Mapping[str, Any]) -> str:
    """Return the fields of an object schema, those that may be left out with a `?`."""
    required = schema.get("required", ())
    return ", ".join(
        f"`{name}`{'' if name in required else '?'}: {type_of(kind)}"
        for name, kind in schema.get("properties", {}).items()
    )


def methods_section(document: Mapping[str, Any]) -> Iterator[str]:
    """Return the methods, group by group."""
    roles = {method.name: method.role.label for method in METHODS}
    group = ""
    for method in sorted(document["methods"], key=lambda method: str(method["name"])):
        name = str(method["name"])
        if name.partition(".")[0] != group:
            group = name.partition(".")[0]
            yield f"\n## {group}\n"
        yield f"\n### `{name}`\n\n{method['summary']} Role: {roles[name]}.\n\n"
        for param in method["params"]:
            optional = "" if param.get("required") else "?"
            yield f"- `{param['name']}`{optional}: {type_of(param['schema'])}\n"
        yield f"- returns {type_of(method['result']['schema'])}\n"


def types_section(schemas: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Return the shapes that methods answer with."""
    yield "\n## Types\n\n| type | fields |\n|---|---|\n"
    for name, schema in sorted(schemas.items(), key=lambda item: shown(item[0])):
        if listed := fields(schema):
            about = " ".join(str(schema.get("description", "")).split())
            yield f"| **{shown(name)}** | {about}<br>{listed} |\n"


def numbers_section(numbers: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Return the numbers of errors."""
    yield "\n## Error numbers\n\n| number | `data.code` |\n|---|---|\n"
    yield from (f"| {number} | `{code}` |\n" for code, number in numbers)
    yield f"| {FAILED} | any other of [errors.md](errors.md) |\n"
    yield (
        "\n`error.data` is `{code, retryable, retry_after_ms, hint}`. The message is for people,\n"
        "the data for programs.\n"
    )


def rpc_page() -> str:
    """Return docs/rpc.md."""
    document = openrpc_document(METHODS, version=__version__)
    schemas: Mapping[str, Mapping[str, Any]] = document["components"]["schemas"]  # type: ignore[index]  # an OpenRPC document has them
    _, results = msgspec.json.schema_components(
        (PackResult, ImportResult, TransferResult, MirrorResult, SurveyResult, Collected, Verified),
        ref_template="#/components/schemas/{name}",
    )
    sections = (
        *methods_section(document),
        *types_section({**schemas, **results}),
        *numbers_section(sorted(NUMBERS.items(), key=lambda item: -item[1])),
    )
    return RPC + "".join(sections)


COMMANDS_HEAD = """\
# Commands

Two programs: `kitd` is the daemon, `kitctl` talks to it. `kitctl COMMAND --help` says what this
page says. Commands that start work wait for it and show how far it is; Ctrl-C leaves it running,
and `--detach` does not wait at all. The exit codes of `kitctl` are with the
[error codes](errors.md), those of `kitd` with the [service](systemd.md#exit-codes).

## kitctl

`kitctl help COMMAND` is `kitctl COMMAND --help`, `kitctl --version` is `kitctl version`. What every
command takes may stand anywhere, before its words or after them. kitd's socket is at
[its usual place](configuration.md#places) unless one is named:

| option | |
|---|---|
"""

KITD_HEAD = """
## kitd

| command | |
|---|---|
"""

EVENTS = """\
# Events

Whatever happens is an event in the ledger, in the same transaction. `kitctl events` prints them,
`kitctl events -f` goes on, also after kitd was away for less than half a minute, and misses none;
with `--json` each is one line `{seq, at, type, subject, data}`.
Programs [subscribe](rpc.md#eventssubscribe), and [notifications](notifications.md) post them
elsewhere. `seq` grows from event to event and is what `--since` takes; the ledger keeps events
[for a while](doctor.md#what-the-ledger-forgets).

Data has the keys below, those with a `?` not always. There may be more keys tomorrow, and more
types.
"""


def synopsis(command: Command) -> str:
    """Return how a command is typed."""
    parts = [f"kitctl {command.name}"]
    for argument in command.arguments:
        word = argument.metavar or argument.names[-1]
        if argument.is_option:
            shown_as = " ".join(filter(None, (argument.names[0], argument.metavar)))
            parts.append(shown_as if argument.is_required else f"[{shown_as}]")
        else:
            shown_as = f"{word}..." if argument.is_repeated else word
            parts.append(f"[{shown_as}]" if argument.is_optional else shown_as)
    return " ".join(parts)


def argument_row(argument: Argument) -> str:
    """Return a row of the table of a command's arguments."""
    name = ", ".join(f"`{name}`" for name in argument.names)
    if argument.is_option:
        name += f" `{cell(argument.metavar)}`" if argument.metavar else ""
    else:
        name = f"`{cell(argument.metavar or argument.names[0])}`"
    notes = [cell(argument.help)]
    if argument.is_option and argument.is_required:
        notes.append("required")
    if argument.is_option and argument.is_repeated:
        notes.append("may be given several times")
    if argument.choices and not all(choice in argument.help for choice in argument.choices):
        notes.append("one of " + ", ".join(f"`{choice}`" for choice in argument.choices))
    return f"| {name} | {'; '.join(notes)} |\n"


def cell(text: str) -> str:
    """Return a text as a table can have it."""
    return text.replace("|", "\\|")


def command_section(command: Command) -> Iterator[str]:
    """Return what a command does, how it is typed and what it takes."""
    yield f"### {command.name}\n\n{command.summary[0].upper()}{command.summary[1:]}.\n\n"
    yield f"`{synopsis(command)}`\n\n"
    if command.arguments:
        yield "| argument | |\n|---|---|\n"
        yield from map(argument_row, command.arguments)
        yield "\n"
    yield f"For example `kitctl {command.example}`.\n\n"


def help_of(*words: str) -> str:
    """Return what `kitd ... --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        run_kitd([*words, "--help"])
    return printed.getvalue()


def daemon_commands() -> Iterator[tuple[str, str]]:
    """Return how each command of the daemon's program is typed, and what it does."""
    for name, about in re.findall(r"^    ([a-z-]+)\s+(.+)$", help_of(), re.MULTILINE):
        usage = help_of(name).partition("\n\n")[0].removeprefix("usage: ")
        yield " ".join(usage.replace("[-h]", "").split()), about


def commands_page() -> str:
    """Return docs/commands.md."""
    sections = [
        "".join(command_section(command))
        for command in sorted(COMMANDS, key=lambda command: command.words)
    ]
    rows = "".join(
        f"| `{cell(usage)}` | {about[0].upper()}{about[1:]} |\n"
        for usage, about in daemon_commands()
    )
    options = "".join(map(argument_row, GLOBAL_OPTIONS)) + "\n"
    return COMMANDS_HEAD + options + "".join(sections).rstrip() + "\n" + KITD_HEAD + rows


def keys_of(data: Mapping[str, str]) -> Iterator[str]:
    """Return the keys of an event's data with their meanings."""
    for key, meaning in data.items():
        yield f"`{key.removesuffix('?')}`{'?' if key.endswith('?') else ''}: {meaning}"


def events_section(types: Mapping[str, EventType]) -> Iterator[str]:
    """Return the types of one group; what all of them have is said once."""
    common = dict(set.intersection(*(set(event.data.items()) for event in types.values())))
    common = {key: text for key, text in next(iter(types.values())).data.items() if key in common}
    if len(types) > 1 and common:
        yield "All have\n\n"
        yield from (f"- {key}\n" for key in keys_of(common))
        yield "\n"
    else:
        common = {}
    yield "| type | what happened | subject | data |\n|---|---|---|---|\n"
    for name, event in types.items():
        own = {key: meaning for key, meaning in event.data.items() if key not in common}
        yield f"| `{name}` | {event.about} | `{event.subject}` | {'<br>'.join(keys_of(own))} |\n"


def events_page() -> str:
    """Return docs/events.md."""
    page = [EVENTS]
    for group in sorted({name.partition(".")[0] for name in EVENT_TYPES}):
        types = {
            name: event
            for name, event in sorted(EVENT_TYPES.items())
            if name.partition(".")[0] == group
        }
        page += [f"\n## {group}\n\n", *events_section(types)]
    return "".join(page)


LOGS = """\
# The log

kitd writes to standard error: JSON, one object a line, or lines for people where that is a terminal
(`log.format`, `log.level`; see [configuration.md](configuration.md)). `event` says what happened;
the names below do not change, and tools may go by them. Besides its own fields every line has
`timestamp` (RFC 3339, UTC) and `level`; what belongs to a job also has `job`, and `project` and
`reference` where it has them; a defect has its `exception`. Fields may be added. `code` is one of
[errors.md](errors.md), and `error` its message. Secrets are taken out of whatever is written.

What libraries have to say is `library.message`, with its words in `text` and who says it in
`logger`. Plain lines are what Python prints by itself when it fails, in kitd or in a worker, and
what is wrong with the configuration at a start: how to write the log is not known by then.

A standard error that takes nothing keeps kitd from nothing: up to 10,000 lines or 4 MiB wait in
memory, and what is beyond them, or what a full disk does not take, is lost and counted. At its end
kitd gives the last lines one second.

What happened to jobs, kits, tags and projects is in the [events](events.md) of the ledger as well,
whole, in order and with numbers: `kitctl events`. The log is for what went on beside that.

| event | level | fields | meaning |
|---|---|---|---|
"""

_LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
}


@dataclass
class Logged:
    """How an event is logged, wherever that is."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def log_events() -> Mapping[str, Logged]:
    """Return every event that the code logs; those that get their name from a caller as well."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in KITD.rglob("*.py")]
    found: dict[str, Logged] = defaultdict(Logged)
    for tree in trees:
        for function in _functions(tree):
            for call in _calls(function):
                if not _is_log(call):
                    continue
                for event, more in _events(call, function, tree, trees):
                    found[event].levels.add(_LEVELS[call.func.attr])
                    found[event].fields |= _fields(call) | more
    return found


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _is_log(call: ast.Call) -> bool:
    match call.func:
        case ast.Attribute(value=ast.Name(id="log"), attr=level):
            return level in _LEVELS
    return False


def _fields(call: ast.Call) -> set[str]:
    return {keyword.arg for keyword in call.keywords if keyword.arg} - {"exc_info"}


def _events(
    call: ast.Call,
    function: ast.FunctionDef | ast.AsyncFunctionDef,
    module: ast.AST,
    modules: Sequence[ast.AST],
) -> Iterator[tuple[str, set[str]]]:
    """Return the names that the event of a call may have, with fields that come with a name."""
    match call.args[0]:
        case ast.Constant(value=str(event)):
            yield event, set()
        case ast.Attribute(attr=name):
            # That of an exception of the module, which is told it.
            yield from _told(name, "__init__", [module])
        case ast.Name(id=name):
            named = [argument.arg for argument in function.args.args]
            if name in named:
                yield from _told(name, function.name, modules)
            for node in ast.walk(function):
                match node:
                    case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                        for part in ast.walk(value):
                            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                                yield part.value, set()


def _told(name: str, function: str, modules: Sequence[ast.AST]) -> Iterator[tuple[str, set[str]]]:
    """Return what callers of a function give for a parameter, wherever it is the first."""
    callees = {function}
    if function == "__init__":
        callees = {
            node.name
            for module in modules
            for node in ast.walk(module)
            if isinstance(node, ast.ClassDef)
            for method in _functions(node)
            if method.name == "__init__" and name in {each.arg for each in method.args.args}
        }
    for module in modules:
        for call in _calls(module):
            callee = getattr(call.func, "attr", getattr(call.func, "id", None))
            match call.args:
                case [ast.Constant(value=str(event)), *_] if callee in callees:
                    yield event, _fields(call)


def logs_page() -> str:
    """Return docs/logs.md."""
    meanings = yaml.safe_load((HERE / "log-events.yaml").read_text(encoding="utf-8"))
    rows = []
    for event, logged in sorted(log_events().items()):
        fields = ", ".join(f"`{name}`" for name in sorted(logged.fields))
        meaning = meanings.get(event, "")
        rows.append(f"| `{event}` | {', '.join(sorted(logged.levels))} | {fields} | {meaning} |\n")
    return LOGS + "".join(rows)


METRICS_BEGIN = "<!-- what follows is written by docs/reference.py -->\n"
METRICS_END = "<!-- until here -->\n"


def metrics_page() -> str:
    """Return docs/metrics.md, with the table as the catalogue has it."""
    page = (HERE / "metrics.md").read_text(encoding="utf-8")
    before, _, rest = page.partition(METRICS_BEGIN)
    _, _, after = rest.partition(METRICS_END)
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{each}`' for each in metric.labels)}"
        f" | {metric.source} | {metric.help} |\n"
        for metric in CATALOGUE
    ]
    table = "| metric | type | labels | from | meaning |\n|---|---|---|---|---|\n"
    return f"{before}{METRICS_BEGIN}\n{table}{''.join(rows)}\n{METRICS_END}{after}"


PAGES = {
    "errors.md": errors_page,
    "rpc.md": rpc_page,
    "commands.md": commands_page,
    "events.md": events_page,
    "logs.md": logs_page,
    "metrics.md": metrics_page,
}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
