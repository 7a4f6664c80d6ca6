"""What each invariant says, in one plain sentence: for messages, reports and docs."""

SENTENCES = {
    "shape_kept": "what is restored has the shape of the weight",
    "dtype_kept": (
        "what is restored is of the weight's dtype or float32, and the same numbers in another "
        "dtype are restored as well"
    ),
    "finite": "finite weights are restored as finite values",
    "deterministic": "the same weight is restored alike every time",
    "calls_independent": "no call changes what another one restores",
    "input_untouched": "the weight that is handed over stays as it is",
    "input_not_needed": "the weight may be overwritten after the call",
    "layout_free": "a weight is restored alike however it lies in memory",
    "rows_independent": "a row is restored alike whatever the other rows are",
    "groups_independent": "a group is restored alike whatever the other groups are",
    "levels": "weights that share a scale have at most 2^bits values",
    "bytes_honest": "the bytes suffice for the detail that comes back",
    "error_bounded": (
        "the rms error of what is quantized by itself is at most 4 / 2^bits of its largest "
        "magnitude"
    ),
    "zero_rows": "a row of zeros stays zero",
    "constant_rows": (
        "a constant row is restored to half a step, and where only signs differ to one step"
    ),
    "ragged_sizes": "rows of any length are restored as well as whole ones, to their last weight",
    "accurate": "weights like trained ones meet the default targets and guards",
    "zero_kept": "a weight of 0 stays 0",
    "idempotent": "what was restored is restored as it is",
    "monotone": "weights that share a scale keep their order",
    "sign_symmetric": "negated weights are restored negated",
    "scale_equivariant": "weights times a power of two are restored times that power",
    "nested_widths": "no row is worse at a wider width",
    "permutation_equivariant": "weights that share a scale are restored alike in any order",
}
