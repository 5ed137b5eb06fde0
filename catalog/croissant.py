"""A pack as a Croissant 1.0 dataset (MLCommons), as Hugging Face and dataset tools read it.

Source: https://docs.mlcommons.org/croissant/docs/croissant-spec.html, read 2026-11-25.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pipeline.terms import UsageTerms

if TYPE_CHECKING:
    import pyarrow as pa

CROISSANT = "croissant.json"
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {"int64": "sc:Integer", "date32[day]": "sc:Date"}


def croissant(pack_id: str, table: pa.Table, manifest: bytes, terms: UsageTerms) -> bytes:
    """The description of a pack whose `manifest` (manifest.parquet) holds `table`.

    Its records are the manifest's rows, each with its image.
    """
    columns = [
        {
            "@type": "cr:Field",
            "@id": f"images/{field.name}",
            "dataType": _TYPES.get(str(field.type), "sc:Text"),
            "source": {
                "fileObject": {"@id": "manifest.parquet"},
                "extract": {"column": field.name},
            },
        }
        for field in table.schema
    ]
    told = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"platemark-pack-{pack_id}",
        "description": (
            f"{table.num_rows} images made by models, each signed (C2PA) and labelled (IPTC "
            f"trainedAlgorithmicMedia), under the usage terms {terms.id}."
        ),
        "license": terms.web_statement or "LICENSE.txt",
        "creator": {"@type": "sc:Organization", "name": terms.licensor},
        "creditText": terms.credit or terms.licensor,
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "manifest.parquet",
                "name": "manifest.parquet",
                "contentUrl": "manifest.parquet",
                "contentSize": f"{len(manifest)} B",
                "encodingFormat": "application/x-parquet",
                "sha256": hashlib.sha256(manifest).hexdigest(),
            },
            {
                "@type": "cr:FileSet",
                "@id": "image-files",
                "name": "image-files",
                # Readers open by the very type: "image/*" they cannot.
                "encodingFormat": sorted(set(table.column("mime").to_pylist())),
                "includes": "images/*",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "key": {"@id": "images/file"},
                "field": columns,
            },
            {
                "@type": "cr:RecordSet",
                "@id": "pictures",
                "name": "pictures",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": "pictures/file",
                        "dataType": "sc:Text",
                        "references": {"field": {"@id": "images/file"}},
                        "source": {
                            "fileSet": {"@id": "image-files"},
                            "extract": {"fileProperty": "fullpath"},
                        },
                    },
                    {
                        "@type": "cr:Field",
                        "@id": "pictures/image",
                        "dataType": "sc:ImageObject",
                        "source": {
                            "fileSet": {"@id": "image-files"},
                            "extract": {"fileProperty": "content"},
                        },
                    },
                ],
            },
        ],
    }
    return json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n"
