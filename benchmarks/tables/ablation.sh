#!/usr/bin/env bash
# The strong recipe, and what it is without each of its levers, for one genotype.
#
#   bash benchmarks/tables/ablation.sh CACHE OUT GENOTYPE [PROTOCOL]
#
# Also from the environment:
#   ROWS   which trainings, such as ROWS="strong no-ema"; all of them if nothing is said
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
genotype=${3:?the third argument is a genotype, a file or a name}
protocol=${4:-}

rows="strong no-warmup no-nesterov no-label-smoothing no-drop-path no-ema no-input-norm"
rows+=" no-rotate no-scale no-crop no-flip paper"
case ${TRAIN:-} in *--streams*) rows+=" only-joints" ;; esac
case ${TRAIN:-} in *--branches*) rows+=" no-branches" ;; esac
if [ -e "$genotype" ] && grep -q se_connect "$genotype"; then rows+=" no-se"; fi

# training ROW: the flags of `skelnas train` that make it another than the strong recipe's
training() {
  case $1 in
    strong | no-se) ;;
    no-nesterov | no-input-norm | no-branches) echo "--$1" ;;
    no-crop) echo "--crop 1" ;;
    no-*) echo "--${1#no-} 0" ;;
    paper) echo "--recipe paper --ema 0" ;; # whatever TRAIN has for all of them
    only-joints) echo "--streams joint --no-branches" ;;
  esac
}

# genotype_of ROW: the genotype, or one with the identity wherever that squeezes and excites
genotype_of() {
  if [ "$1" != no-se ]; then
    echo "$genotype"
  else
    if [ -z "${DRY_RUN:-}" ]; then
      mkdir -p "$out/ablation"
      sed s/se_connect/skip_connect/g "$genotype" > "$out/ablation/no-se-genotype.json"
    fi
    echo "$out/ablation/no-se-genotype.json"
  fi
}

for row in ${ROWS:=$rows}; do
  if [[ " $rows " != *" $row "* ]]; then
    echo "$row: no row of this table; there are $rows" >&2
    exit 2
  fi
done
for row in $ROWS; do
  score "$out/ablation/$row" "$protocol" "" \
    --genotype "$(genotype_of "$row")" --recipe strong $(training "$row") ${CELLS:-}
done
write_table ablation
