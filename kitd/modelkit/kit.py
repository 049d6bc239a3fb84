"""Kits as they are found, ModelKit or ModelPack: the Kitfile that describes the layers."""

from dataclasses import dataclass

from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, parse_config
from kitd.modelkit.errors import InvalidConfigError, UnsupportedKitError
from kitd.modelkit.kitfile import Kitfile
from kitd.modelkit.manifest import KITFILE
from kitd.modelkit.media_type import KitFormat, kit_format
from kitd.modelkit.modelpack import describes, generate_kitfile, parse_modelpack_config
from kitd.oci.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Kit:
    """What a kit says about itself."""

    kitfile: Kitfile
    is_generated: bool = False
    """Whether nobody wrote the Kitfile: it was made of what the manifest says."""
    notes: tuple[str, ...] = ()
    """What a person should know who looks at it, one line each."""


def read_kit(manifest: Manifest, config: bytes) -> Kit:
    """Return a kit by its manifest and the content of its config.

    A ModelPack's Kitfile counts only where it describes the layers that are there. Raises
    `InvalidConfigError`, `UnsupportedKitError` where it is neither ModelKit nor ModelPack.
    """
    form = kit_format(manifest)
    if form is None:
        raise UnsupportedKitError(
            f"not a ModelKit and no ModelPack, but {manifest.artifact_type or manifest.media_type}"
        )
    if form is KitFormat.MODELKIT:
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
