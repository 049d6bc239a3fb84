"""Completion scripts for shells: words and options of the command table. Pure."""

from collections.abc import Callable, Mapping

from kitd.ctl.command import COMMANDS, Argument, Command
from kitd.ctl.command_line import GLOBAL_OPTIONS


def _options_of(command: Command) -> list[Argument]:
    return [argument for argument in (*command.arguments, *GLOBAL_OPTIONS) if argument.is_option]


def _long_names(command: Command) -> list[str]:
    return [option.names[-1] for option in _options_of(command)]


def _first_words() -> list[str]:
    return list(dict.fromkeys(command.words[0] for command in COMMANDS))


def _second_words(first: str) -> list[str]:
    names = (command.words for command in COMMANDS)
    return [words[1] for words in names if words[0] == first and len(words) > 1]


def _after(first: str) -> list[str]:
    """Return what can follow a word that begins commands, and may be one itself."""
    own = [command for command in COMMANDS if command.name == first]
    return [*_second_words(first), *(name for command in own for name in _long_names(command))]


def _groups() -> list[str]:
    return [word for word in _first_words() if _second_words(word)]


def bash() -> str:
    """Return a script for bash's programmable completion."""
    cases = [f'        "{group} ") words="{" ".join(_after(group))}" ;;' for group in _groups()]
    for command in COMMANDS:
        first, _, second = command.name.partition(" ")
        pattern = f'"{first} {second}"' if second else f'"{first} "*'
        cases.append(f'        {pattern}) words="{" ".join(_long_names(command))}" ;;')
    return "\n".join(
        [
            "_kitctl() {",
            '    local current="${COMP_WORDS[COMP_CWORD]}" first="" second="" words word',
            '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            '        case "$word" in',
            "            -*) continue ;;",
            '            *) if [ -z "$first" ]; then first="$word"',
            '               elif [ -z "$second" ]; then second="$word"; fi ;;',
            "        esac",
            "    done",
            '    case "$first $second" in',
            f'        " ") words="{" ".join(_first_words())}" ;;',
            *cases,
            "    esac",
            '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
            "}",
            "complete -o default -F _kitctl kitctl",
        ]
    )


def zsh() -> str:
    """Return a script for zsh, which runs bash's completions."""
    return f"#compdef kitctl\nautoload -Uz bashcompinit && bashcompinit\n{bash()}"


def fish() -> str:
    """Return a script for fish."""
    lines = [
        f"complete -c kitctl -n __fish_use_subcommand -a {word} -d '{_summary(word)}'"
        for word in _first_words()
    ]
    for command in COMMANDS:
        first, _, second = command.name.partition(" ")
        seen = f"__fish_seen_subcommand_from {first}"
        if second:
            others = " ".join(_second_words(first))
            lines.append(
                f"complete -c kitctl -n '{seen}; and not __fish_seen_subcommand_from {others}'"
                f" -a {second} -d '{_quoted(command.summary)}'"
            )
            seen += f"; and __fish_seen_subcommand_from {second}"
        elif others := " ".join(_second_words(first)):
            seen += f"; and not __fish_seen_subcommand_from {others}"
        lines += [
            f"complete -c kitctl -n '{seen}' {_fish_option(option)}"
            for option in _options_of(command)
        ]
    return "\n".join(lines)


def _summary(word: str) -> str:
    found = [command.summary for command in COMMANDS if command.name == word]
    return _quoted(found[0] if found else ", ".join(_second_words(word)))


def _fish_option(option: Argument) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    )
    takes = "" if option.metavar is None else " -r"
    choices = "" if option.choices is None else f" -a '{' '.join(option.choices)}'"
    return f"{names}{takes}{choices} -d '{_quoted(option.help)}'"


def _quoted(text: str) -> str:
    return text.replace("'", "\\'")


SCRIPTS: Mapping[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
