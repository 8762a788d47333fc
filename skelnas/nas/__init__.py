"""The architecture search: supernet, bilevel optimisation, derivation of genotypes."""
