"""Kits as they are found, ModelKit or ModelPack: the Kitfile that describes the layers."""

from dataclasses import dataclass

from kitd.errors import printable
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, parse_config
from kitd.modelkit.errors import InvalidConfigError, KitMismatchError, UnsupportedKitError
from kitd.modelkit.kitfile import Kitfile
from kitd.modelkit.manifest import KITFILE
from kitd.modelkit.media_type import KitFormat, is_contradictory, kit_format
from kitd.modelkit.modelpack import describes, generate_kitfile, parse_modelpack_config
from kitd.oci.descriptor import Descriptor
from kitd.oci.manifest import Manifest

MAX_QUOTED = 160
"""Characters of a foreign word that an error quotes."""


@dataclass(frozen=True, slots=True)
class Kit:
    """What a kit says about itself."""

    kitfile: Kitfile
    is_generated: bool = False
    """Whether nobody wrote the Kitfile: it was made of what the manifest says."""
    notes: tuple[str, ...] = ()
    """What a person should know who looks at it, one line each."""


def config_of(manifest: Manifest, name: str) -> Descriptor:
    """Return the config of a kit; `name` is what an error calls its manifest.

    Raises `UnsupportedKitError` where it is neither ModelKit nor ModelPack.
    """
    if manifest.config is None or kit_format(manifest) is None:
        kind = printable((manifest.artifact_type or manifest.media_type)[:MAX_QUOTED])
        raise UnsupportedKitError(f"{name} is not a ModelKit but {kind}")
    return manifest.config


def read_kit(manifest: Manifest, config: bytes) -> Kit:
    """Return a kit by its manifest and the content of its config.

    A ModelPack's Kitfile counts only where it describes the layers that are there. Raises
    `InvalidConfigError`, `KitMismatchError`, and what `config_of` does.
    """
    described = config_of(manifest, "this")
    if is_contradictory(manifest):
        raise KitMismatchError(
            f"the manifest calls itself {manifest.artifact_type}, and its config"
            f" {described.media_type}"
        )
    try:
        return _read(manifest, config)
    except InvalidConfigError as error:
        message = f"the config {described.digest}: {error.message}"
        raise type(error)(message, hint=error.hint) from error


def _read(manifest: Manifest, config: bytes) -> Kit:
    if kit_format(manifest) is KitFormat.MODELKIT:
        return Kit(parse_config(config))
    notes: tuple[str, ...] = ()
    text = manifest.annotations.get(KITFILE)
    if text is not None:
        try:
            kitfile = parse_config(text.encode("utf-8", "surrogatepass"))
        except InvalidConfigError as error:
            notes = (f"the Kitfile in the manifest cannot be read: {error.message}",)
        else:
            if describes(kitfile, manifest.layers):
                return Kit(kitfile)
            notes = ("the Kitfile in the manifest is not that of its layers, which count",)
    generated = generate_kitfile(
        manifest.layers, parse_modelpack_config(config, max_bytes=MAX_CONFIG_BYTES)
    )
    return Kit(generated.kitfile, is_generated=True, notes=(*notes, *generated.notes))
