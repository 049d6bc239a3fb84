"""The OpenRPC 1.3 document of a set of methods, generated from the types in use."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from kitd.rpc.method import Method

S = TypeVar("S")


def openrpc_document(methods: Sequence[Method[S]], *, version: str) -> Mapping[str, object]:
    """Return the document; `version` is kitd's."""
    fields = [msgspec.structs.fields(method.params) for method in methods]
    types = [field.type for params in fields for field in params]
    schemas, components = msgspec.json.schema_components(
        [*types, *(method.result for method in methods)],
        schema_hook=_schema_of,
        ref_template="#/components/schemas/{name}",
    )
    # The schemas come in the order of the types: first every parameter, then every result.
    of_params, of_results = iter(schemas), iter(schemas[len(types) :])
    return {
        "openrpc": "1.3.2",
        "info": {"title": "kitd", "version": version},
        "methods": [
            {
                "name": method.name,
                "summary": method.summary,
                "paramStructure": "by-name",
                "params": [
                    {
                        "name": field.encode_name,
                        "required": field.required,
                        "schema": next(of_params),
                    }
                    for field in params
                ],
                "result": {"name": "result", "schema": next(of_results)},
                "x-role": method.role.label,
            }
            for method, params in zip(methods, fields, strict=True)
        ],
        "components": {"schemas": components},
    }


def _schema_of(kind: type) -> dict[str, object]:
    if kind is object:
        return {"description": "any JSON"}
    raise NotImplementedError
