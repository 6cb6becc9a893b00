"""A trained network made into a file that runs without this project."""

from __future__ import annotations

from pathlib import Path

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.forms import Form
from fieldshift.run_folder import check_writable
from fieldshift.training.card_file import EXPORT_FORMATS
from pipelines.alignment import check_run_alignment
from pipelines.options import check_run


def export(
    *, run: str, form: Form | None = None, format: str = "onnx", out: str | None = None, align: bool = True
) -> list[Path]:
    """Writes a trained network as one model that takes plain images and makes its moved frames itself.

    Args:
        run: folder of `fieldshift train`, or of one trial of a comparison.
        form: refuse a run whose network has another form (video or folded); by default the run's own.
        format: torch (a torch.export program), onnx, or safetensors (the weights alone).
        out: folder to write to; by default RUN/export-FORMAT.
        align: fuse a segmenter's maps in the reference frame.
    """
    if format not in EXPORT_FORMATS:
        raise UserError(f"--format is '{format}', but must be one of {', '.join(EXPORT_FORMATS)}.")
    check_run(run, form)
    folder = Path(out) if out is not None else Path(run) / f"export-{format}"
    check_writable(folder, "a writable folder")

    from fieldshift.training import load_network
    from fieldshift.training.export import export_network

    network, card = load_network(Path(run))
    check_run_alignment(card, align=align)
    files = export_network(network, card, folder, format, align=align)
    for file in files:
        say(f"{file}  {file.stat().st_size:,} bytes")
    return files
