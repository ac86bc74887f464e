"""The documentation page, one self-contained HTML file made from the OpenAPI document."""

from collections.abc import Collection, Mapping
from html import escape
from typing import Any

import orjson

Json = Mapping[str, Any]

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; border-top: 1px solid #8886; padding-top: 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
"""


def docs(document: Json) -> str:
    """The page: every operation with its parameters and answers, then every schema."""
    operations = "".join(
        _operation(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    info = document["info"]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['summary'])} "
        f'<a href="openapi.json">OpenAPI document</a></p>{operations}<h2>Schemas</h2>{schemas}</html>'
    )


def _operation(method: str, path: str, operation: Json) -> str:
    parameters = {p["name"]: {**p["schema"], "description": p["description"]} for p in operation.get("parameters", [])}
    bodies = operation.get("requestBody", {}).get("content", {}).items()
    body = "".join(f"<p>Body: {_media(media)}</p>" for media in bodies)
    scopes = [scope for way in operation.get("security", ()) for scopes in way.values() for scope in scopes]
    key = f"<p>Key: one with <code>{escape(scopes[0])}</code>, where there are keys</p>" if scopes else ""
    answers = "".join(_answer(status, answer) for status, answer in operation["responses"].items())
    return (
        f"<section><h2><code>{method} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>"
        f"{key}{body}{_properties(parameters, required=())}<table>{answers}</table></section>"
    )


def _answer(status: str, answer: Json) -> str:
    media = "<br>".join(map(_media, answer.get("content", {}).items()))
    return f"<tr><td>{status}<td>{escape(answer['description'])}<td>{media}</tr>"


def _media(content: tuple[str, Json]) -> str:
    media, described = content
    return f"<code>{escape(media)}</code> {_type(described['schema'])}"


def _schema(name: str, schema: Json) -> str:
    properties = _properties(schema.get("properties", {}), schema.get("required", ()))
    return f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p>{properties}'


def _properties(properties: Json, required: Collection[str]) -> str:
    if not properties:
        return ""
    rows = "".join(_property(name, schema, name in required) for name, schema in properties.items())
    return f"<table><tr><th>Name<th>Type<th>Meaning</tr>{rows}</table>"


def _property(name: str, schema: Json, required: bool) -> str:
    mark = ", required" if required else ""
    return (
        f"<tr><td><code>{escape(name)}</code><td>{_type(schema)}{mark}<td>{escape(schema.get('description', ''))}</tr>"
    )


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    shown = {key: value for key, value in schema.items() if key not in ("title", "description")}
    return f"<code>{escape(orjson.dumps(shown).decode())}</code>"
