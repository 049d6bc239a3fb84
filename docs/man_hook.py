"""Has the build of a wheel make the manual pages, which it puts where `man` finds them."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManHook(BuildHookInterface[Any]):
    """A build hook of hatchling, named in pyproject.toml."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the pages, and name them as data of the wheel; who works on kitd has `make man`."""
        if version == "editable":
            return
        root = Path(self.root)
        sys.path.insert(0, str(root / "docs"))
        import man  # noqa: PLC0415 - it lies beside this file

        made = root / "build" / "man"
        build_data["shared_data"].update(
            {str(made / page): f"share/man/{page}" for page in man.write(made)}
        )
