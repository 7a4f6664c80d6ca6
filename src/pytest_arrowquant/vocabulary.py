"""The closed sets that options and everything below share; read at every start of pytest."""

WIDTHS = (2, 4, 8)
MODALITIES = ("text", "code", "image", "audio")
