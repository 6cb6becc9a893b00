"""The description of a trained network on disk, `network.json`, read and checked without importing torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fieldshift.errors import UserError
from fieldshift.motions.finite import is_number
from fieldshift.run_folder import CONFIG, read_config

SCHEMA = "fieldshift.network"
VERSION = 1
WEIGHTS = "weights.safetensors"

EXPORT_FORMATS = ("torch", "onnx", "safetensors")
MLFLOW_FORMAT = "mlflow"
"""The formats that such a network can be exported to."""

ALIGN = "align"
"""The key, in an exported network's card, of whether its maps are fused in the reference frame."""

_KINDS: dict[str, type | tuple[type, ...]] = {
    "data": str,
    "task": str,
    "classes": list,
    "channels": int,
    "size": list,
    "mean": list,
    "std": list,
    "network": str,
    "temporal": str,
    "arm": str,
}


def read_card(folder: Path) -> dict[str, Any]:
    """Reads the description of the network in a run folder. Raises UserError if it is missing or invalid."""
    path = folder / "network.json"
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {folder}; give the folder of `fieldshift train`, or of a trial of a comparison."
        )
    if not path.exists():
        trial = next((path.parent for path in sorted(folder.glob("**/trials/*/network.json"))), None)
        such = f"such as {trial}" if trial else "of `fieldshift train` or of a comparison's trial"
        if trial is None and (folder / CONFIG).is_file() and read_config(folder / CONFIG)[0] == "train":
            raise UserError(f"The training in {folder} is not finished; the same command with --resume continues it.")
        raise UserError(f"{folder} contains no trained network (no network.json); give a folder {such}.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        schema, version = values.pop("schema"), values.pop("version")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise UserError(f"{path} is not a network description; train again or restore the file.") from None
    if schema != SCHEMA or not isinstance(version, int) or version > VERSION:
        raise UserError(
            f"{path} has schema {schema} version {version}; this FieldShift reads {SCHEMA} up to version "
            f"{VERSION}: update FieldShift."
        )
    wrong = [name for name, kind in _KINDS.items() if not isinstance(values.get(name), kind)] or _unusable(values)
    if wrong:
        raise UserError(f"{path} has no usable {' or '.join(wrong)}; train again or restore the file.")
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} contains no {WEIGHTS}; train again or restore the file.")
    return dict(values)


def _unusable(values: dict[str, Any]) -> list[str]:
    """The entries of the right kind that a network cannot read images with."""

    def are_numbers(name: str) -> bool:
        return len(values[name]) == values["channels"] and all(map(is_number, values[name]))

    usable = {
        "classes": len(values["classes"]) > 0 and all(isinstance(each, str) for each in values["classes"]),
        "channels": values["channels"] > 0,
        "size": len(values["size"]) == 2 and all(isinstance(each, int) and each > 0 for each in values["size"]),
        "mean": are_numbers("mean"),
        "std": are_numbers("std") and min(values["std"], default=0) > 0,
    }
    return [name for name, is_usable in usable.items() if not is_usable]
