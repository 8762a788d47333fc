#!/usr/bin/env bash
# The strong recipe, and what it is without each of its levers, for one genotype.
#
#   bash benchmarks/tables/ablation.sh CACHE OUT GENOTYPE [PROTOCOL]
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
genotype=${3:?the third argument is a genotype, a file or a name}
protocol=${4:-}

# variant NAME FLAGS...: the strong recipe but for these flags, in OUT/ablation/NAME
variant() {
  local name=$1
  shift
  score "$out/ablation/$name" "$protocol" "" --genotype "$genotype" --recipe strong "$@" ${CELLS:-}
}

variant strong
variant no-warmup --warmup 0
variant no-nesterov --no-nesterov
variant no-label-smoothing --label-smoothing 0
variant no-drop-path --drop-path 0
variant no-ema --ema 0
variant no-input-norm --no-input-norm
variant no-rotate --rotate 0
variant no-scale --scale 0
variant no-crop --crop 1
variant no-flip --flip 0
variant paper --recipe paper
if [[ ${TRAIN:-} == *--streams* ]]; then variant only-joints --streams joint; fi
write_table ablation
