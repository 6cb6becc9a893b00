"""Export of a trained network into files that run without this project."""

from __future__ import annotations

from pathlib import Path

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.experiment.alignment import check_run_alignment
from fieldshift.forms import Form
from fieldshift.run_folder import check_writable
from fieldshift.training.card_file import EXPORT_FORMATS, MLFLOW_FORMAT
from pipelines.options import check_run


def export(
    *, run: str, form: Form | None = None, format: str = "onnx", out: str | None = None, align: bool | None = None
) -> list[Path]:
    """Exports a trained network as one model that takes plain images and includes the motions.

    Args:
        run: folder of `fieldshift train`, or of one trial of a comparison.
        form: the form that the run's network must have (video or folded), else an error; by default any.
        format: torch (a torch.export program), onnx, safetensors (the weights and their card), or mlflow (a model for
            mlflow.pyfunc.load_model, which reads files and uint8 arrays and needs FieldShift installed).
        out: folder to write to; by default RUN/export-FORMAT.
        align: fuse a segmenter's maps in the reference frame; by default as in the run's training.
    """
    formats = (*EXPORT_FORMATS, MLFLOW_FORMAT)
    if format not in formats:
        raise UserError(f"--format is '{format}', but must be one of {', '.join(formats)}.")
    check_run(run, form)
    folder = Path(out) if out is not None else Path(run) / f"export-{format}"
    check_writable(folder, "a writable folder")
    if format == MLFLOW_FORMAT and folder.exists() and any(folder.iterdir()):
        raise UserError(f"--out {folder} is not empty; give an empty or a new folder for the model.")

    from fieldshift.experiment.cards import note_no_maps
    from fieldshift.training import load_network
    from fieldshift.training.export import export_network
    from fieldshift.training.pyfunc import save_pyfunc
    from pipelines.run_data import align_of

    network, card = load_network(Path(run))
    note_no_maps(card, align)
    align = align_of(Path(run), align)
    check_run_alignment(card, align=align)
    if format == MLFLOW_FORMAT:
        save_pyfunc(Path(run), folder, align=align)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
    else:
        files = export_network(network, card, folder, format, align=align)
    for file in files:
        say(f"{file}  {file.stat().st_size:,} bytes")
    return files
