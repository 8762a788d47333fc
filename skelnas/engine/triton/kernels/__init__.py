"""The kernels of the Triton engine; importing them needs Triton.

Every kernel works on all edges that leave a node, or that enter one. Rows are pixels and columns
channels, in the order N, T, V, C. A program works on a tile: up to `BP` pixels of one clip and all
C channels, padded to `BC`, a power of two. Sums over pixels are written per tile and added up by a
later kernel in a fixed order.

`OPS` is the node's convolutions, packed into one constant: see `packed`. K is the number of edges,
`first` their first target and `source` the node; targets are counted from the first intermediate
node. `skelnas.engine.triton.layout` describes the slots of the large tensors: `slots` an edge,
second stages from `stage2_slot` on, pools from `pool_slot` on. Numbers of pixels are `T`, `V` for
the node and `TO`, `VO` for its targets.

Gradients of raw outputs are affine: `coefficients` holds a, b and c in a * up + b * y + c, where
`up` [targets, P, C] are the gradients of the targets.
"""
