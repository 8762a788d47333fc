#!/usr/bin/env bash
# Table III: NTU RGB+D 60, cross-subject and cross-view; the searched network and others.
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

for protocol in xsub xview; do
  for space in sar darts; do
    search $protocol $space
    cells $protocol $space 9
  done
  for name in hcn st-gcn; do
    baseline $protocol $name
  done
done
write_table 3
