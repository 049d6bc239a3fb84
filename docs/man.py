"""Writes the manual pages: `make man`, and the build of a wheel, which ships them.

kitctl(1) and a page for each of its words from the table of commands, kitd.yaml(5) from
`configuration.md`, kitd(1) from here. Needs the standard library only, as a build has no more. The
language is man(7), which groff and mandoc read.
"""

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from kitd import __version__  # noqa: E402
from kitd.ctl.command import COMMANDS, Argument, Command  # noqa: E402
from kitd.ctl.command_line import GLOBAL_OPTIONS, in_group  # noqa: E402

KITD = """\
## Synopsis
**kitd serve** [**--config** *FILE*] [**--socket** *PATH*]

**kitd check-config** [*FILE*]

**kitd version**, **kitd --version**

## Description
kitd watches directories of AI and ML projects. When work in one comes to rest it packs it as a
ModelKit and pushes that to an OCI registry. What it is told and what it does are jobs, which
survive whatever ends it. **kitctl**(1) asks it and tells it what to do.

## Commands
- **serve**: Run the daemon in the foreground. It logs to stderr: for people on a terminal, as lines
  of JSON elsewhere.
- **check-config**: Print every problem of a configuration with its line, and start nothing.
- **version**: Print the versions of kitd, Python and the system.

## Options
- **--config** *FILE*: The configuration, see **kitd.yaml**(5).
- **--socket** *PATH*: Where **kitctl** and programs connect.

## Signals
- **SIGTERM**, **SIGINT**: Stop in good order: running jobs are put back, and go on at the next
  start. A second one ends it at once.
- **SIGHUP**: Read the configuration again, as **kitctl reload** does.

## Exit status
- **0**: It was told to stop, or what was asked for is done.
- **2**: The command line is wrong.
- **70**: A defect of kitd, which its log names.
- **74**: The disk failed to keep what it was given.
- **75**: Something that may pass, as another kitd with the same state.
- **78**: The configuration is wrong.

## Environment
- **KITD_CONFIG**, **KITD_STATE_DIR**, **KITD_SOCKET**: Absolute paths of the configuration, the
  ledger and the cache, and the socket.

## Files
- **$XDG_CONFIG_HOME/kitd/kitd.yaml**, **/etc/kitd/kitd.yaml**: The configuration of a user's
  daemon and of the machine's.
- **$XDG_STATE_HOME/kitd**, **/var/lib/kitd**: The ledger, and the cache, an OCI image layout.
- **$XDG_RUNTIME_DIR/kitd/kitd.sock**, **/run/kitd/kitd.sock**: The socket.

## See also
**kitctl**(1), **kitd.yaml**(5)
"""

EXIT_STATUS = """\
## Exit status
- **0**: Done.
- **1**: It failed.
- **2**: The command line is wrong.
- **3**: Not allowed.
- **4**: The daemon cannot be reached.
- **5**: It took longer than it may.
- **130**: Interrupted. A job that was waited for goes on.
"""

ENVIRONMENT = """\
## Environment
- **KITD_SOCKET**: The socket of the daemon, unless **--socket** names one.
- **NO_COLOR**: If it is not empty, nothing is coloured.
- **FORCE_COLOR**, **CLICOLOR_FORCE**: If one is neither empty nor 0, colours also where stdout is
  no terminal. **NO_COLOR** wins.
- **COLUMNS**, **LINES**: The size of the terminal, in place of what it says itself.
- **SOURCE_DATE_EPOCH**: Seconds since 1970 that **kitctl pack** takes for the time.
"""

_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[([^\]]+)\]\([^)]*\)")


def escaped(text: str) -> str:
    """Return a text as roff has it; a hyphen of an option stays one that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return (
        text.replace("~", "\\(ti").replace("^", "\\(ha").replace("`", "\\(ga").replace("'", "\\(aq")
    )


def inline(text: str) -> str:
    """Return a line of Markdown as roff: code and bold text are bold, emphasis is italic."""
    parts: list[str] = []
    end = 0
    for found in _INLINE.finditer(text):
        parts.append(escaped(text[end : found.start()]))
        code, bold, emphasis, link = found.groups()
        if link is not None:
            parts.append(inline(link))
        elif emphasis is not None:
            parts.append(f"\\fI{escaped(emphasis)}\\fR")
        else:
            parts.append(f"\\fB{escaped(code or bold)}\\fR")
        end = found.end()
    parts.append(escaped(text[end:]))
    line = "".join(parts)
    return f"\\&{line}" if line.startswith((".", "'")) else line


def from_markdown(page: str) -> Iterator[str]:
    """Yield lines of roff for headings, paragraphs, lists, tables and code."""
    for block in re.split(r"\n\n+", page.strip()):
        lines = block.splitlines()
        while lines and (heading := re.fullmatch(r"(#+) (.*)", lines[0])):
            lines.pop(0)
            level, title = len(heading[1]), inline(heading[2])
            yield f'.SH "{title.upper()}"' if level < 3 else f'.SS "{title}"'
        if not lines:
            continue
        if lines[0].startswith("|"):
            yield from _table(lines)
        elif lines[0].startswith("- "):
            yield from _list(lines)
        elif lines[0].startswith("```"):
            yield from example([line for line in lines if not line.startswith("```")])
        else:
            yield ".PP"
            yield inline(" ".join(line.strip() for line in lines))


def _list(lines: Sequence[str]) -> Iterator[str]:
    items: list[str] = []
    for line in lines:
        if line.startswith("- "):
            items.append(line[2:])
        else:
            items[-1] += f" {line.strip()}"
    named = [re.fullmatch(r"((?:\*\*[^*]+\*\*|\*[^*]+\*|,| )+): (.*)", item) for item in items]
    for item, name in zip(items, named, strict=True):
        if name is not None and all(named):
            yield from definition(inline(name[1]), inline(name[2]))
        else:
            yield ".IP \\(bu 2"
            yield inline(item)


def _table(lines: Sequence[str]) -> Iterator[str]:
    header, _, *rows = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines]
    for row in rows:
        term, *cells = row
        facts = [
            f"{name}: {cell}" if name and name not in ("what it does", "is") else cell
            for name, cell in zip(header[1:], cells, strict=False)
            if cell
        ]
        yield from definition(inline(term), inline("; ".join(facts)))


def definition(term: str, meaning: str) -> Iterator[str]:
    """Yield a term and, further in, what it means."""
    yield from (".TP", term, meaning)


def example(lines: Sequence[str]) -> Iterator[str]:
    """Yield lines that stand as they are."""
    yield from (".PP", ".RS 4", ".nf", *(f"\\&{escaped(line)}" for line in lines), ".fi", ".RE")


def option_term(argument: Argument) -> str:
    """Return how an argument is written."""
    metavar = escaped(argument.metavar or argument.parameter)
    if not argument.is_option:
        return f"\\fI{metavar}\\fR"
    names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in argument.names)
    return names if argument.metavar is None else f"{names} \\fI{metavar}\\fR"


def synopsis(command: Command) -> str:
    """Return how a command is called, with all that it takes."""
    parts = [f"\\fBkitctl {escaped(command.name)}\\fR"]
    # Options first, as they may stand anywhere.
    for argument in sorted(command.arguments, key=lambda argument: not argument.is_option):
        name = argument._replace(names=argument.names[:1]) if argument.is_option else argument
        text = option_term(name)
        dots = "..." if argument.is_repeated else ""
        is_needed = argument.is_required if argument.is_option else not argument.is_optional
        parts.append(f"{text}{dots}" if is_needed else f"[{text}]{dots}")
    return " ".join(parts)


def head(name: str, section: int, summary: str) -> Iterator[str]:
    """Yield the beginning of a page."""
    at_s = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    date = time.strftime("%Y-%m-%d", time.gmtime(at_s))
    yield f'.TH "{name.upper()}" "{section}" "{date}" "kitd {__version__}" "kitd"'
    # No hyphenation, and no words that are spread.
    yield from (".nh", ".ad l", ".SH NAME", f"{escaped(name)} \\- {escaped(summary)}")


def _arguments(arguments: Sequence[Argument]) -> Iterator[str]:
    for argument in arguments:
        choices = "" if argument.choices is None else f": {', '.join(argument.choices)}"
        told = set(argument.choices or ()) <= set(re.findall(r"[a-z-]+", argument.help))
        yield from definition(
            option_term(argument), _sentence(argument.help + ("" if told else choices))
        )


def _sentence(summary: str) -> str:
    return escaped(f"{summary[0].upper()}{summary[1:]}.")


def command_page(word: str, commands: Sequence[Command]) -> Iterator[str]:
    """Yield the page for commands that begin with the same word."""
    own = [command for command in commands if command.name == word]
    yield from head(f"kitctl-{word}", 1, (own or commands)[0].summary)
    yield ".SH SYNOPSIS"
    for position, command in enumerate(commands):
        yield from ((".br",) if position else ())
        yield synopsis(command)
    yield ".SH DESCRIPTION"
    for command in commands:
        if len(commands) > 1:
            yield f'.SS "{escaped(f"kitctl {command.name}")}"'
        yield _sentence(command.summary)
        yield from _arguments(command.arguments)
        yield from (".PP", "Example:")
        yield from example([f"kitctl {command.example}"])
    yield from (".PP", "The options of every command are in \\fBkitctl\\fR(1).")
    yield from (".SH SEE ALSO", "\\fBkitctl\\fR(1), \\fBkitd\\fR(1)")


def kitctl_page(pages: Mapping[str, Sequence[Command]]) -> Iterator[str]:
    """Yield the page for all commands."""
    yield from head("kitctl", 1, "ask and command the packaging daemon kitd")
    yield ".SH SYNOPSIS"
    yield "\\fBkitctl\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]"
    yield ".SH DESCRIPTION"
    yield (
        "A thin client of \\fBkitd\\fR(1), over its Unix socket. Commands that start work wait for "
        "it, with progress on a terminal; Ctrl\\-C leaves the work to the daemon."
    )
    yield ".SH OPTIONS"
    yield from _arguments(GLOBAL_OPTIONS)
    yield ".SH COMMANDS"
    for word, commands in pages.items():
        for command in commands:
            yield from definition(
                f"\\fBkitctl {escaped(command.name)}\\fR", _sentence(command.summary)
            )
        yield f"See \\fBkitctl\\-{word}\\fR(1)."
    yield from from_markdown(ENVIRONMENT)
    yield from from_markdown(EXIT_STATUS)
    yield from (".SH SEE ALSO", "\\fBkitd\\fR(1), \\fBkitd.yaml\\fR(5)")


def kitd_page() -> Iterator[str]:
    """Yield the page of the daemon."""
    yield from head("kitd", 1, "pack AI/ML projects as ModelKits when they come to rest")
    yield from from_markdown(KITD)


def configuration_page() -> Iterator[str]:
    """Yield the page of the configuration."""
    yield from head("kitd.yaml", 5, "configuration of kitd")
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    yield from from_markdown(page.replace("# Configuration", "## Description", 1))
    yield ".SH EXAMPLE"
    lines = (ROOT / "config" / "kitd.example.yaml").read_text(encoding="utf-8").splitlines()
    yield from example(lines)
    yield from (".SH SEE ALSO", "\\fBkitd\\fR(1), \\fBkitctl\\-config\\fR(1)")


def pages() -> dict[str, str]:
    """Return all pages by the names of their files."""
    words = dict.fromkeys(command.words[0] for command in COMMANDS)
    by_word = {
        word: [each for each in COMMANDS if each.name == word or in_group(each, word)]
        for word in words
    }
    found = {"kitd.1": kitd_page(), "kitctl.1": kitctl_page(by_word)}
    found |= {f"kitctl-{word}.1": command_page(word, each) for word, each in by_word.items()}
    found["kitd.yaml.5"] = configuration_page()
    return {name: _page(lines) for name, lines in found.items()}


def _page(lines: Iterable[str]) -> str:
    """Return a page; a heading begins a paragraph by itself."""
    kept: list[str] = []
    for line in lines:
        if line != ".PP" or not kept or not kept[-1].startswith((".SH", ".SS")):
            kept.append(line)
    return "\n".join(kept) + "\n"


def write(directory: Path) -> list[Path]:
    """Write all pages as `man1/kitctl.1`, and return their names below the directory."""
    written = []
    for name, text in pages().items():
        path = Path(f"man{name[-1]}", name)
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text, encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    write(Path(sys.argv[1]))
