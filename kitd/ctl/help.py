"""What `--help` prints. Pure."""

from collections.abc import Sequence

from kitd.ctl.command import COMMANDS, Command
from kitd.ctl.command_line import GLOBAL_OPTIONS, build_parser, in_group


def overview(group: str | None = None) -> str:
    """Return the help for all commands, or for those of one group."""
    commands = [command for command in COMMANDS if group is None or command.words[0] == group]
    usage = "kitctl [OPTIONS] COMMAND" if group is None else f"kitctl {group} COMMAND"
    lines = [f"usage: {usage}", "", *_columns([(c.name, c.summary) for c in commands]), ""]
    lines += ["options of every command:", *_options(), ""]
    if group is None:
        lines += ["kitctl help COMMAND says how one is used, kitctl --version which this is", ""]
    lines.append(f"example: kitctl {commands[0].example}")
    own = [command for command in commands if command.name == group]
    return "\n".join([*lines, *("\n" + build_parser(command).format_help() for command in own)])


def is_group(word: str) -> bool:
    """Whether several commands begin with this word."""
    return any(in_group(command, word) for command in COMMANDS)


def command_help(command: Command) -> str:
    """Return the help for one command."""
    lines = [build_parser(command).format_help().rstrip(), "", "options of every command:"]
    return "\n".join([*lines, *_options()])


def _options() -> list[str]:
    return _columns(
        [
            (f"{', '.join(option.names)} {option.metavar or ''}".rstrip(), option.help)
            for option in GLOBAL_OPTIONS
        ]
    )


def _columns(pairs: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(left) for left, _ in pairs)
    return [f"  {left:{width}}   {right}" for left, right in pairs]
