"""From the words of a command line to a command and its arguments. Pure.

The options that every command has may stand anywhere, and are taken out by hand: they have to be
found before the command is known, and a command to which nothing else is said then needs no
argparse, which is a good part of the start-up of `kitctl status`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kitd.ctl.command import COMMANDS, Argument, Command
from kitd.ctl.error import UsageError
from kitd.errors import KitdError

if TYPE_CHECKING:
    from argparse import ArgumentParser

GLOBAL_OPTIONS = (
    Argument(("--socket",), "the daemon's socket", metavar="PATH", values="file"),
    Argument(("--json",), "print one JSON document and nothing else"),
    Argument(("-q", "--quiet"), "no progress, no messages"),
    Argument(("-h", "--help"), "say how it is used"),
)


class Options(NamedTuple):
    """The options of every command."""

    socket: str | None = None
    json: bool = False
    quiet: bool = False
    help: bool = False


def split_options(words: Sequence[str]) -> tuple[Options, list[str]]:
    """Return the options that every command has, and the other words. Raises `UsageError`.

    `--version` and `help COMMAND`, as other programs have them, are `version` and `COMMAND --help`.
    """
    options = Options()
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == "--":
            rest += [word, *remaining]
        elif word == "--json":
            options = options._replace(json=True)
        elif word in ("-q", "--quiet"):
            options = options._replace(quiet=True)
        elif word in ("-h", "--help"):
            options = options._replace(help=True)
        elif word == "--socket" or word.startswith("--socket="):
            path = next(remaining, "") if word == "--socket" else word.partition("=")[2]
            if not path:
                raise UsageError("--socket needs a path", hint="kitctl --socket PATH COMMAND")
            options = options._replace(socket=path)
        else:
            rest.append(word)
    if rest[:1] == ["--version"]:
        rest[0] = "version"
    if rest[:1] == ["help"]:
        return options._replace(help=True), rest[1:]
    return options, rest


def find_command(words: Sequence[str]) -> tuple[Command, list[str]]:
    """Return the command that the first word or two name, and the rest. Raises `UsageError`."""
    group = [command.words[1] for command in COMMANDS if in_group(command, words[0])]
    for command in COMMANDS:
        count = len(command.words)
        if tuple(words[:count]) != command.words:
            continue
        if count == 1 and group and not _is_argument(words[1:]):
            continue
        return command, list(words[count:])
    if group and len(words) == 1:
        raise UsageError(f"{words[0]} what?", hint=f"one of: {', '.join(group)}")
    wrong = words[1] if group else words[0]
    known = group or [command.words[0] for command in COMMANDS]
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    near = get_close_matches(wrong, known, n=1)
    raise UsageError(
        f"there is no command {wrong[:40]!r}" + (f" of {words[0]}" if group else ""),
        hint=f"did you mean {near[0]}?" if near else "see: kitctl --help",
    )


def _is_argument(words: Sequence[str]) -> bool:
    """Whether the next word is meant for a command that others begin with, and is none of them."""
    return bool(words) and (words[0].startswith("-") or "/" in words[0])


def in_group(command: Command, group: str) -> bool:
    """Whether a command is one of several that begin with the same word."""
    return command.name.startswith(f"{group} ")


def parse_arguments(command: Command, words: Sequence[str]) -> Mapping[str, Any]:
    """Return the command's arguments by parameter. Raises `UsageError`."""
    if not words and not any(map(_is_needed, command.arguments)):
        return {argument.parameter: _default(argument) for argument in command.arguments}
    arguments, unknown = build_parser(command).parse_known_args(words)
    if unknown:
        raise _unknown_argument(command, unknown[0])
    return vars(arguments)


def _unknown_argument(command: Command, word: str) -> UsageError:
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    name = word.partition("=")[0]
    options = (*command.arguments, *GLOBAL_OPTIONS)
    names = [each for option in options if option.is_option for each in option.names]
    near = get_close_matches(name, names, n=1) if name.startswith("-") else []
    what = "option" if name.startswith("-") else "argument"
    return UsageError(
        f"{command.name} takes no {what} {name[:40]!r}",
        hint=f"did you mean {near[0]}?" if near else f"kitctl {command.name} --help",
    )


def _is_needed(argument: Argument) -> bool:
    return argument.is_required if argument.is_option else not argument.is_optional


def _default(argument: Argument) -> object:
    """Return what argparse makes of an argument that is not given."""
    if argument.is_repeated:
        return []
    return False if argument.is_option and argument.metavar is None else None


def build_parser(command: Command) -> "ArgumentParser":
    """Return the parser of one command; it raises `UsageError` where argparse would exit."""
    import argparse  # noqa: PLC0415 - see the top of this module

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise UsageError(f"{command.name}: {message}", hint=f"kitctl {command.name} --help")

    parser = Parser(
        prog=f"kitctl {command.name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=f"example: kitctl {command.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    for argument in command.arguments:
        _add(parser, command, argument)
    return parser


def _reader(command: Command, argument: Argument) -> Callable[[str], object]:
    """Return what reads a value, and says what is wrong with it together with what to type."""

    def read(text: str) -> object:
        try:
            return argument.read(text)
        except KitdError as error:
            name = "/".join(argument.names) if argument.is_option else argument.metavar
            raise UsageError(
                f"{command.name}: {name}: {error.message}",
                hint=error.hint or f"kitctl {command.name} --help",
            ) from error

    return read


def _add(parser: "ArgumentParser", command: Command, argument: Argument) -> None:
    if argument.is_option and argument.metavar is None:
        parser.add_argument(
            *argument.names, dest=argument.parameter, help=argument.help, action="store_true"
        )
        return
    details: dict[str, Any] = {"type": _reader(command, argument), "choices": argument.choices}
    if argument.is_option:
        details |= {"required": argument.is_required, "dest": argument.parameter}
        if argument.is_repeated:
            details |= {"action": "append", "default": []}
    elif argument.is_repeated:
        details["nargs"] = "*" if argument.is_optional else "+"
    elif argument.is_optional:
        details["nargs"] = "?"
    parser.add_argument(*argument.names, help=argument.help, metavar=argument.metavar, **details)
