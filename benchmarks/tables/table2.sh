#!/usr/bin/env bash
# Table II: NTU RGB+D 60, cross-subject; networks of 7 to 11 of the searched cells.
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

search xsub sar
for number in 7 8 9 10 11; do
  cells xsub sar $number
done
write_table 2
