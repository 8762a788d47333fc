"""Read the convolutions that `skelnas.engine.triton.layout.pack_ops` packs into one constant.

Each accessor takes the constant, `OPS`, and the index of a convolution. Kernels call them while
they are compiled, so that branches on the result cost nothing.
"""

from __future__ import annotations


def _static(function):
    """Allow kernels to call a function of constants at compile time.

    Triton passes builtins its own keyword arguments. (Its `constexpr_function` needs 3.4.)
    """
    function.__triton_builtin__ = True
    return function


@_static
def kernel_size(ops, j, **_):
    """Return the size of a convolution's kernel."""
    return (ops >> 64 * j) & 15


@_static
def num_taps(ops, j, **_):
    """Return the number of taps of a stage."""
    return kernel_size(ops, j) ** 2


@_static
def dilation(ops, j, **_):
    """Return the dilation of a separable convolution."""
    return (ops >> (64 * j + 4)) & 15


@_static
def num_stages(ops, j, **_):
    """Return the number of separable stages; 0 for a dense convolution."""
    return (ops >> (64 * j + 8)) & 15


@_static
def op_position(ops, j, **_):
    """Return the position of the id among the primitives."""
    return (ops >> (64 * j + 12)) & 15


@_static
def separable_index(ops, j, **_):
    """Return the number of separable convolutions before this one."""
    return (ops >> (64 * j + 16)) & 15


@_static
def two_stage_index(ops, j, **_):
    """Return the number of two-stage convolutions before this one."""
    return (ops >> (64 * j + 20)) & 15


@_static
def first_weight(ops, j, **_):
    """Return the number of weights, per edge, of the convolutions before this one."""
    return (ops >> (64 * j + 32)) & 0xFFFFFFFF


@_static
def num_weights(ops, j, channels, **_):
    """Return the number of weights of an edge."""
    taps, stages = kernel_size(ops, j) ** 2, num_stages(ops, j)
    return stages * (taps + channels) * channels if stages else taps * channels**2
