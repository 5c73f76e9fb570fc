"""The op vocabulary: one table, the first fifteen in GHN-2's order (Knyazev et al., 2021), so that its checkpoints fit."""

GHN2_OPS = (
    "max_pool", "avg_pool", "sep_conv", "dil_conv", "conv", "msa", "cse", "sum",
    "concat", "input", "bias", "bn", "ln", "pos_enc", "glob_avg",
)  # fmt: skip
