#!/usr/bin/env bash
# Table IV: Kinetics-Skeleton; the searched network and others.
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

for space in sar darts; do
  search official $space
  cells official $space 9
done
for name in temporal-conv st-gcn; do
  baseline official $name
done
write_table 4
