"""Affine, smooth and index operations: the framework differentiates them, and rightly."""

from __future__ import annotations

from nonsmooth.dictionary.operation import Kind, Operation

__all__ = ["AFFINE", "INDEX", "SMOOTH", "opaque"]

_AFFINE = """
add sub rsub neg sum mean nansum trace cumsum diff positive avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d
upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d embedding real imag conj deg2rad
rad2deg im2col col2im nll_loss nll_loss2d fft_fft fft_fft2 fft_fftn fft_ifft fft_ifft2 fft_ifftn fft_rfft
fft_rfft2 fft_rfftn fft_irfft fft_irfft2 fft_irfftn fft_hfft fft_ihfft complex constant scatter_add index_add
scatter_mean nextafter lu_unpack
"""

_SMOOTH = """
mul square matmul mm bmm mv dot vdot inner outer addmm addbmm baddbmm addmv addr addcmul lerp cumprod prod
linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution bilinear einsum exp
exp2 expm1 sin cos tan sinh cosh tanh atan asinh erf erfc sigmoid log_sigmoid softplus gelu silu mish celu
softmax log_softmax logsumexp logaddexp logaddexp2 logcumsumexp sinc i0 power batch_norm layer_norm group_norm
instance_norm rms_norm scaled_dot_product_attention lstm gru rnn_tanh lstm_cell gru_cell rnn_tanh_cell var
cross_entropy_loss mse_loss smooth_l1_loss huber_loss soft_margin_loss binary_cross_entropy_with_logits ctc_loss
glu grid_sampler_2d grid_sampler_3d affine_grid_generator linalg_det linalg_inv linalg_solve linalg_cholesky
linalg_matrix_exp linalg_cross linalg_solve_triangular linalg_eig kron cross cholesky_solve
cholesky_inverse scatter_prod special_erfcx special_i0e special_i1 special_i1e special_log_ndtr
mvlgamma igamma igammac polar ldexp linalg_householder_product
linalg_lu_solve linalg_ldl_solve triangular_solve conv_tbc linalg_inv_ex linalg_cholesky_ex
ormqr random_gamma smoothed_pieces smoothed_max
"""

_INDEX = """
view reshape flatten unflatten squeeze unsqueeze expand permute transpose t moveaxis select slice narrow split
chunk unbind cat stack repeat tile flip roll diagonal diag diag_embed tril triu gather take index index_select
masked_select scatter index_put index_fill masked_scatter constant_pad_nd reflection_pad1d reflection_pad2d
reflection_pad3d replication_pad1d replication_pad2d replication_pad3d unfold pixel_shuffle pixel_unshuffle
channel_shuffle as_strided clone detach copy fill zero cast contiguous lift max_unpool2d max_unpool3d compare
equal logic integer create random nonzero item is_nonzero allclose view_as_real view_as_complex nan_to_num rot90
block_diag index_copy slice_scatter select_scatter diagonal_scatter as_strided_scatter repeat_interleave put
"""


def _records(names: str, kind: Kind) -> tuple[Operation, ...]:
    """Record names of one kind."""
    return tuple(Operation(name=name, kind=kind) for name in names.split())


def opaque(name: str) -> Operation:
    """Record a user's own operation that brings its own derivative.

    >>> opaque("MyFunction").kind.value
    'opaque'
    """
    return Operation(name=name, kind=Kind.OPAQUE, summary="the user's own operation with its own derivative")


AFFINE = _records(_AFFINE, Kind.AFFINE)
"""The affine operations of the dictionary."""

SMOOTH = _records(_SMOOTH, Kind.SMOOTH)
"""The smooth operations of the dictionary."""

INDEX = _records(_INDEX, Kind.INDEX)
"""The operations that move or compare entries and compute none."""
