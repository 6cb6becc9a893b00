"""A trained network made into a file that runs without this project."""

from __future__ import annotations

from pathlib import Path

from fieldshift.console import say
from fieldshift.errors import UserError


def export(*, run: str, format: str = "onnx", out: str | None = None, align: bool = True) -> list[Path]:
    """Writes a trained network as one model that takes plain images and makes its moved frames itself.

    Args:
        run: folder of `fieldshift train`, or of one trial of a comparison.
        format: torch (a torch.export program), onnx, or safetensors (the weights alone).
        out: folder to write to; by default RUN/export-FORMAT.
        align: fuse a segmenter's maps in the reference frame.
    """
    from fieldshift.training import load_network
    from fieldshift.training.export import FORMATS, export_network

    if format not in FORMATS:
        raise UserError(f"--format is '{format}', but must be one of {', '.join(FORMATS)}.")
    network, card = load_network(Path(run))
    folder = Path(out) if out is not None else Path(run) / f"export-{format}"
    files = export_network(network, card, folder, format, align=align)
    for file in files:
        say(f"{file}  {file.stat().st_size:,} bytes")
    return files
