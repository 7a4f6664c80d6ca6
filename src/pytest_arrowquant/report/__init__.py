"""The files of a run: what they are called, and that they are written whole or not at all."""

import os
from pathlib import Path

from ..options import REPORT_FOLDER, Settings
from ..records import Plain


def write_reports(
    folder: Path, records: list[Plain], errors: list[Plain], summary: Plain, settings: Settings
) -> list[Path]:
    """Write accuracy.json, accuracy.txt and the charts into `folder`; returns their paths."""
    from .charts import write_charts
    from .json_file import report_json
    from .text import report_text

    folder.mkdir(parents=True, exist_ok=True)
    if folder.name == REPORT_FOLDER:
        write_whole(folder / ".gitignore", b"*\n")
    left = left_in_full_precision(settings)
    texts = {
        "accuracy.json": report_json(records, errors, summary, left, settings.seed),
        "accuracy.txt": report_text(records, errors, summary, left),
    }
    paths = [write_whole(folder / name, text.encode()) for name, text in texts.items()]
    return paths + write_charts(records, folder)


def left_in_full_precision(settings: Settings) -> list[Plain]:
    """The tensors of the original that no quantizer was put on, and why."""
    if settings.original is None:
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


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file so that a reader sees all of it or the one before; returns its path."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        return temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
