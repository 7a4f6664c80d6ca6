"""The files of a run: what they are called, and that they are written whole or not at all."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..options import REPORT_FOLDER, Settings
from ..plain import Plain


def write_reports(
    folder: Path,
    records: list[Plain],
    errors: list[Plain],
    summary: Plain,
    settings: Settings,
    checkpoint_notes: Sequence[str] = (),
    invariants: Sequence[Plain] = (),
) -> list[Path]:
    """Write accuracy.json, accuracy.txt and the charts into `folder`; returns their paths.

    checkpoint_notes: on an audited checkpoint as a whole. invariants: what the project's own
    quantizers were held to, as Accuracy.check_invariant() has it.
    """
    from ..planning import plan_of_records
    from .charts import write_charts
    from .json_file import report_pieces
    from .rollup import rollup_of
    from .text import apart, report_text

    folder.mkdir(parents=True, exist_ok=True)
    if folder.name == REPORT_FOLDER:
        write_whole(folder / ".gitignore", [b"*\n"])
    left = left_in_full_precision(settings)
    audited = apart(records)[2]
    rollup = rollup_of(audited) if audited else None
    notes, made = list(checkpoint_notes), plan_of_records(records, left)
    plan = made.to_json() if made else None
    held = list(invariants)
    pieces = report_pieces(records, errors, summary, left, settings.seed, rollup, plan, notes, held)
    text = report_text(records, errors, summary, left, rollup, plan, notes, held)
    return [
        write_whole(folder / "accuracy.json", (piece.encode() for piece in pieces)),
        write_whole(folder / "accuracy.txt", [text.encode()]),
        *write_charts(records, folder),
    ]


def left_in_full_precision(settings: Settings) -> list[Plain]:
    """The tensors of the original that no quantizer was put on, and why; none in an audit."""
    if settings.original is None or settings.quantized is not None:
        return []
    from ..checkpoints import open_checkpoint

    return [
        {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "dtype": tensor.stored_dtype,
            "reason": tensor.reason_left,
        }
        for tensor in open_checkpoint(settings.original).left
    ]


def write_whole(path: Path, pieces: Iterable[bytes]) -> Path:
    """Write a file so that a reader sees all of it or the one before; returns its path."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.writelines(pieces)
        return temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
