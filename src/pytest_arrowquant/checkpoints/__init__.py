"""Checkpoints on disk: one tensor in memory at a time."""

from .safetensors_file import CheckpointTensor, SafetensorsFile

__all__ = ["CheckpointTensor", "SafetensorsFile"]
