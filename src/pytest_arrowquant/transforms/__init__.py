"""What happens around a quantizer: smoothing, rotation, and ranges of activations over time."""
