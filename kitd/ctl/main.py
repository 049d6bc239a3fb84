"""The entry point of `kitctl`: find the command, run it, turn what it raised into an exit code."""

import io
import os
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from kitd.client.error import RpcError
from kitd.ctl.command_line import Options, find_command, parse_arguments, split_options
from kitd.ctl.error import InterruptedByUserError, UnwritableOutputError, UsageError
from kitd.ctl.exit_code import ExitCode, exit_code_of
from kitd.ctl.format import printable
from kitd.ctl.session import Session
from kitd.ctl.terminal import Terminal
from kitd.errors import KitdError


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line, `sys.argv` by default, and return the exit code."""
    given = sys.argv[1:] if words is None else words
    _open_missing_streams()
    # Which streams there are has to be known before the first mistake can be told.
    terminal = _terminal(Options(json="--json" in given))
    try:
        return _obey(terminal, given)
    except UnwritableOutputError as error:
        terminal.complain(f"kitctl: {error}")
    except BrokenPipeError:
        # `kitctl events | head` ends here.
        pass
    # Python would complain of what it still has when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.FAILED


def run() -> NoReturn:
    """Run `sys.argv` and leave at once: taking the interpreter apart is a tenth of a command."""
    if os.getpid() == 1:
        from kitd.ctl.ending_signals import end_as_first  # noqa: PLC0415 - for containers only

        end_as_first()
    os._exit(main())


def _open_missing_streams() -> None:
    """Open /dev/null where a standard stream was closed: a socket would be taken for it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _obey(terminal: Terminal, given: Sequence[str]) -> int:
    """Run one command line. Raises `UnwritableOutputError`, `BrokenPipeError`."""
    if given[:1] == ["__complete"]:
        from kitd.ctl.complete import complete  # noqa: PLC0415 - for shells only

        terminal.tell(complete(given[1:], time.time()))
        return ExitCode.DONE
    try:
        options, rest = split_options(given)
        terminal = _terminal(options)
        return _run(terminal, options, rest)
    except UnwritableOutputError:
        raise
    except KitdError as error:
        _report(terminal, error)
        return exit_code_of(error)
    except KeyboardInterrupt:
        _report(terminal, InterruptedByUserError("interrupted"))
        return ExitCode.INTERRUPTED


def _terminal(options: Options) -> Terminal:
    for stream in (sys.stdout, sys.stderr):
        # A character that the locale does not have is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    return Terminal(sys.stdout, sys.stderr, os.environ, json_only=options.json, quiet=options.quiet)


def _run(terminal: Terminal, options: Options, words: Sequence[str]) -> int:
    if options.help or not words:
        return _help(terminal, options, words)
    command, rest = find_command(words)
    arguments = parse_arguments(command, rest)
    session = Session(terminal, options.socket, time.time())
    try:
        return command.load()(session, **arguments)
    except RpcError as error:
        if error.code == "not_found":
            from kitd.ctl.near import name_near  # noqa: PLC0415 - only a mistake needs it

            error.hint = name_near(session, command, arguments) or error.hint
        raise


def _help(terminal: Terminal, options: Options, words: Sequence[str]) -> int:
    from kitd.ctl import help as texts  # noqa: PLC0415 - needs the parser of every command

    if not words:
        text = texts.overview()
    elif len(words) == 1 and texts.is_group(words[0]):
        text = texts.overview(words[0])
    else:
        command, _ = find_command(words)
        text = texts.command_help(command)
    if not options.help and terminal.json_only:
        raise UsageError("no command is named", hint="see: kitctl --help")
    if not options.help:
        terminal.complain(text)
        return ExitCode.USAGE
    terminal.tell(text)
    return ExitCode.DONE


def _report(terminal: Terminal, error: KitdError) -> None:
    terminal.complain(printable(f"kitctl: {error.describe()}"))
    if terminal.json_only:
        document = {"code": error.code, "message": error.message, "hint": error.hint}
        terminal.show_line({"error": document}, "")


if __name__ == "__main__":
    run()
