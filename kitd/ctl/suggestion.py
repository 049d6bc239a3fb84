"""From the words typed so far to what may come next, for shells that complete. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kitd.ctl.command import COMMANDS, Argument, Command
from kitd.ctl.command_line import GLOBAL_OPTIONS, in_group

LOCAL = "local://"
"""What may stand before a kit of the cache that is compared."""
LAYERS = ("model", "code", "datasets", "docs", "prompts", "mcpservers")


class Suggestion(NamedTuple):
    """A word that may come next, and what it is."""

    word: str
    summary: str = ""


class Wanted(NamedTuple):
    """What the word at the cursor may be.

    Words that are known, or what `argument` takes; `typed` of that is there already, and `before`
    it in the same word, as `--state=`. `socket` is the daemon that was named on the way.
    """

    known: tuple[Suggestion, ...] = ()
    argument: Argument | None = None
    typed: str = ""
    before: str = ""
    socket: str | None = None


def split_line(line: str) -> list[str]:
    """Return the words of a line up to the cursor, as a shell reads them; the last may be empty."""
    words: list[str] = []
    word, quote, is_begun, is_escaped = "", "", False, False
    for character in line:
        if is_escaped:
            word, is_escaped = word + character, False
        elif character == "\\" and quote != "'":
            is_escaped = is_begun = True
        elif quote:
            word, quote = (word, "") if character == quote else (word + character, quote)
        elif character in "'\"":
            quote, is_begun = character, True
        elif character.isspace():
            if is_begun:
                words.append(word)
            word, is_begun = "", False
        else:
            word, is_begun = word + character, True
    return [*words, word]


_HELP = Suggestion("help", "say how a command is used")


def wanted(words: Sequence[str]) -> Wanted:
    """Return what the last of the words may be; the others are complete."""
    *before, current = words or [""]
    rest, socket, is_socket = _without_global_options(before)
    if is_socket:
        return Wanted(argument=GLOBAL_OPTIONS[0], typed=current)
    if rest[:1] == ["help"]:
        return Wanted(known=_first(rest[1:], current), typed=current, socket=socket)
    command, given = _find(rest)
    if command is None:
        return Wanted(known=_first(rest, current), typed=current, socket=socket)
    found = _argument(command, given, current)
    if len(rest) == 1 and not current.startswith("-"):
        found = found._replace(known=(*_second_words(rest[0]), *found.known))
    return found._replace(socket=socket)


def constant_values(argument: Argument) -> Sequence[Suggestion]:
    """Return the values of an argument that no daemon has to be asked for."""
    if argument.choices is not None:
        return [Suggestion(choice) for choice in argument.choices]
    if argument.values == "layers":
        return [Suggestion(name) for name in LAYERS]
    return ()


def _without_global_options(words: Sequence[str]) -> tuple[list[str], str | None, bool]:
    """Return the other words, the socket, and whether its path comes next."""
    rest: list[str] = []
    socket: str | None = None
    remaining = iter(words)
    for word in remaining:
        if word == "--":
            return [*rest, word, *remaining], socket, False
        if word == "--socket":
            socket = next(remaining, None)
            if socket is None:
                return rest, None, True
        elif word.startswith("--socket="):
            socket = word.partition("=")[2]
        elif not any(word in option.names for option in GLOBAL_OPTIONS):
            rest.append(word)
    return rest, socket, False


def _find(words: Sequence[str]) -> tuple[Command | None, Sequence[str]]:
    """Return the command, and the words that follow it."""
    for count in (2, 1):
        for command in COMMANDS:
            if len(words) >= count and command.words == tuple(words[:count]):
                return command, words[count:]
    return None, ()


def _first(rest: Sequence[str], current: str) -> tuple[Suggestion, ...]:
    if current.startswith("-"):
        own = () if rest else (Suggestion("--version", _summary("version")),)
        return (*_options(GLOBAL_OPTIONS), *own)
    if rest:
        return tuple(_second_words(rest[0])) if len(rest) == 1 else ()
    words = dict.fromkeys(command.words[0] for command in COMMANDS)
    return (*(Suggestion(word, _summary(word)) for word in words), _HELP)


def _second_words(first: str) -> Iterator[Suggestion]:
    for command in COMMANDS:
        if in_group(command, first):
            yield Suggestion(command.words[1], command.summary)


def _summary(word: str) -> str:
    own = [command.summary for command in COMMANDS if command.name == word]
    return own[0] if own else ", ".join(each.word for each in _second_words(word))


def _options(arguments: Sequence[Argument]) -> Iterator[Suggestion]:
    for argument in arguments:
        if argument.is_option:
            yield Suggestion(argument.names[-1], argument.help)


def _argument(command: Command, given: Sequence[str], current: str) -> Wanted:
    options = {name: each for each in command.arguments if each.is_option for name in each.names}
    positionals = [each for each in command.arguments if not each.is_option]
    used: set[Argument] = set()
    count, pending, only_positionals = 0, None, False
    for word in given:
        if pending is not None:
            pending = None
        elif only_positionals or not word.startswith("-") or word == "-":
            count += 1
        elif word == "--":
            only_positionals = True
        elif (option := options.get(word.partition("=")[0])) is not None:
            used.add(option)
            pending = option if option.metavar is not None and "=" not in word else None
    if pending is not None:
        return Wanted(argument=pending, typed=current)
    if current.startswith("-") and not only_positionals:
        name, equals, value = current.partition("=")
        if equals:
            return Wanted(argument=options.get(name), typed=value, before=f"{name}=")
        left = [each for each in command.arguments if each not in used or each.is_repeated]
        return Wanted(known=tuple(_options([*left, *GLOBAL_OPTIONS])), typed=current)
    if count < len(positionals):
        before = LOCAL if positionals[count].values == "compared kit" else ""
        if not current.startswith(before):
            before = ""
        typed = current.removeprefix(before)
        return Wanted(argument=positionals[count], typed=typed, before=before)
    last = positionals[-1] if positionals and positionals[-1].is_repeated else None
    return Wanted(argument=last, typed=current)
