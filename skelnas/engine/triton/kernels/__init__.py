"""The kernels of the Triton engine; importing them needs Triton.

`OPS` holds the convolutions on a node's edges as one constant, 64 bits each from the low end: four
bits for each of the kernel's size, its dilation, the number of separable stages (0 for a dense
convolution), the place of the id among the primitives, and how many separable and how many
two-stage convolutions come before it; eight bits for the taps of dense ones before it; and 32 for
an edge's weights before it. Every kernel works on all edges that leave a node, or that enter one.

Rows are pixels and columns channels (N, T, V, C). A program works on a tile: up to `BP` pixels of
one clip and all C channels, of which `BC` are reserved, a power of two. Sums over pixels are
written a tile and added up by a later kernel, in an order that is always the same.

`skelnas.engine.triton.layout` says where in the large tensors which result lies.
"""
