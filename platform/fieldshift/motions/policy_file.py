"""The policy file: JSON with a schema name and a version, checked whole before a policy is made of it.

Version 1 is an object of "schema": "fieldshift.policy", "version": 1, "inputs", "nodes", "frames", "reference",
"symmetric", "fill" (a name or numbers), "interpolation", "found" (how it was found, any JSON object) and
"edges": [{"source", "target", "steps": [{"op", "magnitude"}]}]. Nothing else may stand in it; only "found" may lack.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.errors import UserError

if TYPE_CHECKING:
    from fieldshift.motions.graph import Edge
    from fieldshift.motions.policy import Policy

SCHEMA = "fieldshift.policy"
VERSION = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""For each older version a function from its document to the next version's; it need not touch "version"."""

_FIELDS = ("inputs", "nodes", "frames", "reference", "symmetric", "fill", "interpolation", "edges")


def to_document(policy: Policy) -> dict[str, Any]:
    """The policy as plain JSON values, in the order a reader wants them."""
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "frames": policy.frames,
        "reference": policy.reference,
        "symmetric": policy.symmetric,
        "fill": policy.fill if isinstance(policy.fill, str) else list(policy.fill),
        "interpolation": policy.interpolation,
        "inputs": policy.inputs,
        "nodes": policy.nodes,
        "edges": [
            {
                "source": edge.source,
                "target": edge.target,
                "steps": [{"op": step.op, "magnitude": step.magnitude} for step in edge.steps],
            }
            for edge in policy.edges
        ],
        "found": policy.found,
    }


def _keys(what: str, value: Any, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{what} is {_short(value)}, but must be an object with {', '.join(needed)}.")
    missing = [key for key in needed if key not in value]
    if missing:
        raise UserError(f"{what} lacks {', '.join(missing)}; add it.")
    unknown = [key for key in value if key not in needed and key not in optional]
    if unknown:
        raise UserError(
            f"{what} has unknown keys {', '.join(map(_short, unknown))}; allowed: {', '.join(needed + optional)}."
        )
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _list(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{what} is {_short(value)}, but must be a list.")
    return value


def _edge(value: Any, number: int) -> Edge:
    from fieldshift.motions.graph import Edge, Step

    document = _keys(f"Edge {number}", value, ("source", "target", "steps"))
    steps = []
    for step in _list(f"The steps of edge {number}", document["steps"]):
        entry = _keys(f"A step of edge {number}", step, ("op", "magnitude"))
        steps.append(Step(entry["op"], entry["magnitude"]))
    return Edge(document["source"], document["target"], tuple(steps))


def _migrated(document: dict[str, Any]) -> dict[str, Any]:
    version = document.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UserError(f"The schema version is {_short(version)}, but must be a whole number from 1 to {VERSION}.")
    if version > VERSION:
        raise UserError(
            f"The schema version is {version}, but this FieldShift reads up to {VERSION}; update FieldShift."
        )
    while version < VERSION:
        if version not in MIGRATIONS:
            raise UserError(f"The schema version {version} is no longer read; this FieldShift reads {VERSION}.")
        document = MIGRATIONS[version](document)
        version += 1
    return {**document, "version": VERSION}


def _parsed(text: str) -> dict[str, Any]:
    if not text.strip():
        raise UserError("It is empty, but must hold a policy as JSON; write it again.")

    def refuse(constant: str) -> Any:
        raise UserError(f"It holds {constant}, but every number must be finite.")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise UserError(f"The key {twice[0]!r} appears twice in one object; keep one.")
        return dict(pairs)

    try:
        document = json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except UserError:
        raise
    except json.JSONDecodeError as error:
        raise UserError(f"It is not JSON (line {error.lineno}: {error.msg}); a policy file is JSON.") from None
    except ValueError:  # whole numbers of thousands of digits
        raise UserError("It holds a number that is too long to be read; give magnitudes within their limits.") from None
    except RecursionError:
        raise UserError("It is nested too deeply to be a policy.") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else document
        says = "no schema" if found is None else f'"schema": {_short(found)}'
        raise UserError(f'It says {says}, but a policy file (fieldshift search writes them) says "schema": "{SCHEMA}".')
    return document


def document_of(text: str) -> dict[str, Any]:
    """The document in a JSON text, of this version and with all its fields, their values not checked; else UserError."""
    return _keys("It", _migrated(_parsed(text)), ("schema", "version", *_FIELDS), ("found",))


def read(text: str) -> dict[str, Any]:
    """The fields of the policy in a JSON text, for the constructor, which checks their values; else UserError."""
    document = document_of(text)
    fields = {name: document[name] for name in _FIELDS}
    fields["edges"] = tuple(_edge(edge, i) for i, edge in enumerate(_list("edges", document["edges"])))
    if not isinstance(fields["fill"], str):
        fields["fill"] = tuple(_list("fill", fields["fill"]))
    for name in ("reference", "interpolation"):
        if not isinstance(fields[name], str):
            raise UserError(f"{name} is {_short(fields[name])}, but must be a name.")
    fields["found"] = document.get("found", {})
    if not isinstance(fields["found"], dict):
        raise UserError(f"found is {_short(fields['found'])}, but must be an object.")
    return fields


def invalid(source: str, error: UserError) -> UserError:
    """The error in one line that names its source, a file or "the text"."""
    return UserError(f"{source} is not a valid policy: {' '.join(str(error).split())}")


def text_of(path: Path) -> str:
    """The text of a policy file; a file that is missing or no text is a UserError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"There is no policy file {path}; give the path of an existing one.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"The policy file {path} cannot be read: {reason}; give a JSON file.") from None


def write(path: Path, text: str) -> Path:
    """Write a text file whole or not at all, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # noqa: PTH101 - mkstemp's files are private
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
