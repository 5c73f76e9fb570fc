"""Names of the torch functions that the tracer knows, by what they mean for the graph; new ones are added here.

A name stands for all its variants: `relu` is `F.relu`, `torch.relu` and `Tensor.relu`; in-place names are listed
without their underscore.
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# One activation in, the same shape out, no node.
ELEMENTWISE = _names("""
    abs alpha_dropout ceil celu clamp clamp_max clamp_min clip clone contiguous cos detach dropout dropout1d
    dropout2d dropout3d elu erf exp expm1 feature_alpha_dropout feature_dropout flip floor gelu hardshrink
    hardsigmoid hardswish hardtanh leaky_relu local_response_norm log log10 log1p log2 log_sigmoid log_softmax
    logit logsigmoid mish nan_to_num neg negative normalize positive reciprocal relu relu6 requires_grad_ roll
    round rrelu rsqrt selu sigmoid sign silu sin softmax softmin softplus softshrink softsign sqrt square tan
    tanh tanhshrink threshold tril triu trunc _threshold
""")

# The same values in another order or shape; these may follow the classification layer.
RESHAPES = _names("""
    adjoint bfloat16 clone contiguous data detach double dropout expand expand_as flatten float half log_softmax
    moveaxis movedim mT narrow permute ravel reshape reshape_as select softmax squeeze swapaxes swapdims T t to
    transpose type type_as unflatten unsqueeze view view_as __getitem__
""")

# What may follow the classification layer: reshapes, and scaling by a number.
AFTER_CLASSIFIER = RESHAPES | _names("div divide mul multiply true_divide __rmul__ __truediv__ float to mean")

# Functions that are not nodes, and whose result depends on all their inputs.
PASS_THROUGH = (
    RESHAPES
    | ELEMENTWISE
    | _names("""
    add addbmm addcdiv addcmul addmm addmv affine_grid all amax amin any argmax argmin argsort as_strided atan2
    baddbmm bitwise_and bitwise_not bitwise_or bmm broadcast_tensors broadcast_to cat cdist channel_shuffle
    chunk column_stack concat concatenate copy_ cosine_similarity cross cumprod cumsum diagonal div divide dot
    dstack einsum embedding eq fill_ floor_divide fmod fold full_like gather ge glu greater grid_sample
    grid_sampler gt H hsplit hstack imag index_add index_copy index_put index_select inner interpolate kron
    l1_norm le lerp less linalg_norm linalg_vector_norm logaddexp logical_and logical_not logical_or logsumexp
    lt masked_fill masked_fill_ matmul max maximum mean median mH min minimum mm mul multiply mv
    native_channel_shuffle ne norm outer pad pixel_shuffle pixel_unshuffle pow prelu prod rdiv real remainder
    repeat repeat_interleave rot90 scatter scatter_add slice_scatter sort split split_with_sizes stack std
    std_mean sub subtract sum take_along_dim tensor_split tensordot tile topk true_divide unbind unfold
    unsafe_chunk unsafe_split upsample upsample_bilinear upsample_nearest var var_mean vdot vector_norm vsplit
    vstack where zero_ __and__ __iadd__ __idiv__ __imul__ __invert__ __isub__ __iter__ __itruediv__ __or__
    __radd__ __rdiv__ __rmatmul__ __rmul__ __rpow__ __rsub__ __rtruediv__ __setitem__ __xor__ _weight_norm
""")
)

# Functions that combine a parameter with activations.
PRODUCTS = _names("__matmul__ __rmatmul__ addmm addmv baddbmm bmm einsum matmul mm mv tensordot")
SUMS = _names("__iadd__ __isub__ __radd__ __rsub__ add sub subtract")
SCALES = _names("__imul__ __itruediv__ __rmul__ __rtruediv__ __truediv__ div divide mul multiply true_divide")

# Functions whose result does not depend on the values of their argument.
FACTORIES = _names("""
    bernoulli_ empty_like exponential_ full_like new_empty new_full new_ones new_tensor new_zeros normal_
    ones_like rand_like randint_like randn_like random_ uniform_ zeros_like
""")

# Functions that make control flow or shapes depend on the values of an activation.
DATA_DEPENDENT = _names("""
    allclose argwhere bincount equal histc is_nonzero isclose item masked_select multinomial nonzero
    nonzero_static numpy tolist unique unique_consecutive __array__ __bool__ __complex__ __contains__ __float__
    __index__ __int__
""")

RECURRENT = _names("gru gru_cell lstm lstm_cell rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell")

# Properties that a tensor without data has as well.
QUERIES = _names("""
    data_ptr dim element_size get_device is_complex is_contiguous is_floating_point ndimension nelement numel
    size storage_offset stride __format__ __hash__ __len__ __repr__
""")
