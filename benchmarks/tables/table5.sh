#!/usr/bin/env bash
# Table V: NTU RGB+D 60, cross-view; cells searched with squeeze-and-excitation and without.
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

for space in sar sar-no-se; do
  search xview $space
  cells xview $space 9
done
with=$out/xview/sar/9-cells without=$out/xview/sar-no-se/9-cells
save "$out/xview/with-and-without-se.json" \
  evaluate "$cache" "$with" --compare "$without" --json ${EVALUATE:-}
write_table 5
