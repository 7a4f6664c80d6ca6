"""The errors of this project: each says what was given, where, and what would be accepted."""


class ArrowQuantError(Exception):
    """Base of every error raised on purpose by pytest-arrowquant."""


class SchemeError(ArrowQuantError, ValueError):
    """A bit width, granularity or kind of zero that does not exist."""


class TensorError(ArrowQuantError, ValueError):
    """An array that cannot be quantized or measured: its dtype, shape or values."""


class TargetError(ArrowQuantError, ValueError):
    """A target or guard that is unknown, of a wrong type or out of range."""


class OptionError(ArrowQuantError, ValueError):
    """A command-line option or ini setting with a bad value."""


class CheckpointError(ArrowQuantError):
    """A checkpoint file that is missing, truncated or malformed."""


class QuantizerError(ArrowQuantError):
    """A quantizer that declares nonsense, raises, or returns what is no restored weight."""


class InvariantBroken(AssertionError):
    """A quantizer breaks an invariant; the message has the sentence and the weight."""


class AccuracyFailure(AssertionError):
    """A tensor misses a target or trips a guard; the message is the whole report of it."""
