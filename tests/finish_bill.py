"""Say in a bill of materials what the program that writes it does not know: for `make sbom`.

Which package and which file it describes, and as identifiers of SPDX those licences that packages
only tell by a classifier. The same bill always has the same bytes.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

CLASSIFIERS = {"License :: OSI Approved :: Apache Software License": "Apache-2.0"}


def finished(bill: dict[str, Any], wheel: Path) -> dict[str, Any]:
    """Return a CycloneDX document for this wheel."""
    described = bill["metadata"]["component"]
    described["purl"] = f"pkg:pypi/{described['name']}@{described['version']}"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    described["hashes"] = [{"alg": "SHA-256", "content": digest}]
    for component in bill["components"]:
        for each in component.get("licenses", []):
            licence = each.get("license", {})
            if known := CLASSIFIERS.get(licence.get("name")):
                del licence["name"]
                licence["id"] = known
    return bill


if __name__ == "__main__":
    path, wheel = map(Path, sys.argv[1:])
    document = finished(json.loads(path.read_text(encoding="utf-8")), wheel)
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
