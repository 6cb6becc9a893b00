"""The policy file: JSON with a schema name and a version, validated completely before a policy is built from it.

Version 1 is an object of "schema": "fieldshift.policy", "version": 1, "inputs", "nodes", "frames", "reference",
"symmetric", "fill" (a name or numbers), "interpolation", "found" (how it was found, any JSON object) and
"edges": [{"source", "target", "steps": [{"op", "magnitude"}]}]. No other fields are allowed; only "found" is optional.
At most 1,000 are allowed of frames, of inputs and of nodes.

Version 2 is a policy with a motion per place of a network, or per group of channels
(`fieldshift.motions.placed`): in place of "inputs", "nodes" and "edges" it has "groups" (a whole number, N) and "motions":
[{"places": [names of modules], "groups": N objects of "inputs", "nodes" and "edges"}]. Both versions stay readable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.errors import UserError, one_line
from fieldshift.forms import check_length
from fieldshift.motions.finite import is_number
from fieldshift.wording import counted

if TYPE_CHECKING:
    from fieldshift.motions.graph import Edge, Graph

SCHEMA = "fieldshift.policy"
VERSION, PLACED_VERSION = 1, 2
FINISHED = "done"
"""The phase that `found` names once a search is finished."""
BY_SEARCH = "fieldshift search"
"""The origin that `found` names (`by`) of a policy that a search found."""
_SETTINGS = ("frames", "reference", "symmetric", "fill", "interpolation")
_GRAPH = ("inputs", "nodes", "edges")


def to_document(
    graph: Graph, fill: str | tuple[float, ...], interpolation: str, found: dict[str, Any]
) -> dict[str, Any]:
    """A policy of one motion as plain JSON values, in the order of the file, version 1."""
    settings = _settings_of(graph, fill, interpolation)
    return {"schema": SCHEMA, "version": VERSION, **settings, **_graph_of(graph), "found": found}


def to_placed_document(
    motions: Sequence[tuple[Sequence[str], Sequence[Graph]]],
    fill: str | tuple[float, ...],
    interpolation: str,
    found: dict[str, Any],
) -> dict[str, Any]:
    """A policy of several motions, each of places and of one graph per group, as plain JSON values, version 2."""
    first = motions[0][1]
    return {
        "schema": SCHEMA,
        "version": PLACED_VERSION,
        **_settings_of(first[0], fill, interpolation),
        "groups": len(first),
        "motions": [
            {"places": list(places), "groups": [_graph_of(graph) for graph in graphs]} for places, graphs in motions
        ],
        "found": found,
    }


def to_text(document: dict[str, Any]) -> str:
    """A policy's document as JSON text; raises UserError where `found` is not plain JSON."""
    try:
        return json.dumps(document, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise UserError(f"The policy's `found` must be plain JSON, but {error}; store plain values.") from None


def is_unfinished(found: dict[str, Any]) -> bool:
    """Whether `found` names a search that has not ended; a policy without a phase was not searched by this project."""
    return bool(found.get("phase", FINISHED) != FINISHED)


def may_be_chance(decision: Mapping[str, Any]) -> bool:
    """Whether the margin of a decision in `found` is at most two of its standard errors, as it is where nothing differs."""
    error = decision.get("margin_error")
    return error is not None and (decision.get("margin") or 0.0) <= 2 * error


def decisions_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The decisions that `found` records, in order; none where it has no record of them.

    Each has `at`, `chosen` (names), `harm` (numbers by name) and perhaps `margin` and `margin_error`. Raises UserError for
    any other shape: `found` may be any JSON object, and a person may have edited it.
    """
    decisions = found.get("decisions") or []
    advice = "restore it or remove `decisions`"
    if not isinstance(decisions, list):
        raise UserError(f"`decisions` of `found` is {_short(decisions)}, but must be a list; {advice}.")
    for number, decision in enumerate(decisions, 1):
        name = f"decision {number} of `found`"
        if not isinstance(decision, dict):
            raise UserError(f"{name} is {_short(decision)}, but must be an object with at, chosen and harm; {advice}.")
        for key, (fits, words) in _DECISION.items():
            if not fits(decision.get(key)):
                given = f"has the {key} {_short(decision[key])}" if key in decision else f"has no {key}"
                raise UserError(f"{name} {given}, but must have {words}; {advice}.")
    return decisions


def search_settings(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the search that `found` records; empty where it has no such record."""
    settings = found.get("settings")
    return settings if isinstance(settings, dict) else {}


def _is_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _is_costs(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(is_number, value.values()))


def _is_number_or_none(value: object) -> bool:
    return value is None or is_number(value)


_DECISION: dict[str, tuple[Callable[[object], bool], str]] = {
    "at": (lambda value: isinstance(value, str), "a text"),
    "chosen": (_is_names, "a list of names"),
    "harm": (_is_costs, "an object of finite numbers by name"),
    "margin": (_is_number_or_none, "a finite number"),
    "margin_error": (_is_number_or_none, "a finite number or none"),
}


def digest(document: dict[str, Any]) -> str:
    """16 hexadecimal digits that identify the content of a document, without `found`."""
    text = json.dumps(
        {key: value for key, value in document.items() if key != "found"}, sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _settings_of(graph: Graph, fill: str | tuple[float, ...], interpolation: str) -> dict[str, Any]:
    return {
        "frames": graph.frames,
        "reference": graph.reference,
        "symmetric": graph.symmetric,
        "fill": fill if isinstance(fill, str) else list(fill),
        "interpolation": interpolation,
    }


def _graph_of(graph: Graph) -> dict[str, Any]:
    edges = [
        {
            "source": edge.source,
            "target": edge.target,
            "steps": [{"op": step.op, "magnitude": step.magnitude} for step in edge.steps],
        }
        for edge in graph.edges
    ]
    return {"inputs": graph.inputs, "nodes": graph.nodes, "edges": edges}


def _keys(what: str, value: Any, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{what} is {_short(value)}, but must be an object with {', '.join(needed)}.")
    missing = [key for key in needed if key not in value]
    unknown = [key for key in value if key not in needed and key not in optional]
    if missing and unknown:
        raise UserError(
            f"{what} has {', '.join(map(_short, unknown))} but not {', '.join(missing)}; correct the names."
        )
    if missing:
        raise UserError(f"{what} lacks {', '.join(missing)}; add the missing keys.")
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
    from fieldshift.motions.graph import (
        Edge,
        Step,
    )  # imports torch, which a command that only checks a file does without

    document = _keys(f"Edge {number} of the list", value, ("source", "target", "steps"))
    steps, name = [], f"edge {document['source']}->{document['target']}"
    for step in _list(f"The steps of {name}", document["steps"]):
        entry = _keys(f"A step of {name}", step, ("op", "magnitude"))
        steps.append(Step(entry["op"], entry["magnitude"]))
    return Edge(document["source"], document["target"], tuple(steps))


def version_of(document: dict[str, Any]) -> int:
    """The version of a policy's document, 1 or 2; any other raises UserError."""
    version = document.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UserError(
            f"The schema version is {_short(version)}, but must be a whole number from 1 to {PLACED_VERSION}."
        )
    if version > PLACED_VERSION:
        raise UserError(
            f"The schema version is {version}, but this FieldShift reads up to {PLACED_VERSION}; update FieldShift."
        )
    return version


def parsed(text: str) -> dict[str, Any]:
    if not text.strip():
        raise UserError("It is empty, but must contain a policy as JSON; write it again.")

    def refuse(constant: str) -> Any:
        raise UserError(f"It contains {constant}, but every number must be finite.")

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
    except ValueError:  # integers with thousands of digits
        raise UserError("It contains a number that is too long; give magnitudes within their limits.") from None
    except RecursionError:
        raise UserError("It is nested too deeply to be a policy.") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else document
        says = "no schema" if found is None else f'"schema": {_short(found)}'
        raise UserError(f'It has {says}, but a policy file (fieldshift search writes them) has "schema": "{SCHEMA}".')
    return document


def document_of(text: str) -> dict[str, Any]:
    """The document of a JSON text, with all fields of its version but unchecked values; raises UserError otherwise."""
    document = parsed(text)
    own = _GRAPH if version_of(document) == VERSION else ("groups", "motions")
    return _keys("It", document, ("schema", "version", *_SETTINGS, *own), ("found",))


def read(text: str) -> dict[str, Any]:
    """The fields of the policy in a JSON text, for the constructor, which checks their values; raises UserError."""
    document = document_of(text)
    if document["version"] != VERSION:
        raise UserError(
            "It has separate motions for several places (version 2), which no single video can show; use it with the form "
            "folded."
        )
    return {**_settings(document), **_graph(document, ""), "found": _found(document)}


def read_placed(document: dict[str, Any]) -> dict[str, Any]:
    """The fields of a version 2 document: settings, found and, per motion, (places, graphs of the groups)."""
    groups = document["groups"]
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise UserError(f"groups is {_short(groups)}, but must be a whole number of at least 1.")
    motions = []
    for number, entry in enumerate(_list("motions", document["motions"])):
        motion = _keys(f"Motion {number}", entry, ("places", "groups"))
        places = _list(f"The places of motion {number}", motion["places"])
        if not places or not all(isinstance(place, str) and place for place in places):
            raise UserError(f"The places of motion {number} are {_short(places)}, but must be names of modules.")
        graphs = _list(f"The groups of motion {number}", motion["groups"])
        if len(graphs) != groups:
            raise UserError(
                f"Motion {number} has {counted(len(graphs), 'group')}, but groups is {groups}; give that many."
            )
        whole = [_keys(f"A group of motion {number}", graph, _GRAPH) for graph in graphs]
        motions.append((tuple(places), [_graph(graph, f" of motion {number}") for graph in whole]))
    return {"settings": _settings(document), "motions": motions, "found": _found(document)}


def _settings(document: dict[str, Any]) -> dict[str, Any]:
    settings = {name: document[name] for name in _SETTINGS}
    if type(settings["frames"]) is int and settings["frames"] > 0:  # anything else is refused by the graph
        check_length(settings["frames"], "The number of frames")
    if not isinstance(settings["fill"], str):
        settings["fill"] = tuple(_list("fill", settings["fill"]))
    for name in ("reference", "interpolation"):
        if not isinstance(settings[name], str):
            raise UserError(f"{name} is {_short(settings[name])}, but must be a name.")
    return settings


def _graph(document: dict[str, Any], where: str) -> dict[str, Any]:
    edges = tuple(_edge(edge, i) for i, edge in enumerate(_list(f"edges{where}", document["edges"])))
    return {"inputs": document["inputs"], "nodes": document["nodes"], "edges": edges}


def _found(document: dict[str, Any]) -> dict[str, Any]:
    found = document.get("found", {})
    if not isinstance(found, dict):
        raise UserError(f"found is {_short(found)}, but must be an object.")
    return found


def invalid(source: str, error: UserError) -> UserError:
    """Prefixes the error with its source, a file or "the text", in one line."""
    return UserError(f"{source} is not a valid policy: {one_line(error)}")


def text_of(path: Path) -> str:
    """The text of a policy file; a file that is missing or not text raises UserError."""
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a text with a byte-order mark
    except FileNotFoundError:
        raise UserError(f"There is no policy file {path}; give the path of an existing one.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"The policy file {path} cannot be read: {reason}; give a JSON file.") from None
