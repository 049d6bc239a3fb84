"""What the commands of `kitd.ctl.command.COMMANDS` do, one module a group.

Each command is a function of the session and of its own arguments by name; it returns the exit code
and raises `KitdError` for what a person should read.
"""
