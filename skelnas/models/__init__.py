"""Networks: the supernet that is searched and the network that a genotype describes."""
