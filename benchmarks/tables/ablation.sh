#!/usr/bin/env bash
# Ablation of the strong recipe for one genotype: without each of its settings.
#
#   bash benchmarks/tables/ablation.sh CACHE OUT GENOTYPE [PROTOCOL]
#
# Also from the environment:
#   ROWS   trainings, such as ROWS="strong no-ema" (default: all)
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
genotype=${3:?the third argument is a genotype, a file or a name}
protocol=${4:-}

rows="strong no-warmup no-nesterov no-label-smoothing no-drop-path no-ema no-input-norm"
rows+=" no-rotate no-scale no-crop no-flip paper"
case ${TRAIN:-} in *--streams*) rows+=" only-joints" ;; esac
case ${TRAIN:-} in *--branches*) rows+=" no-branches" ;; esac
if [ -e "$genotype" ] && grep -q se_connect "$genotype"; then rows+=" no-se"; fi

# training ROW: the flags of `skelnas train` that differ from the strong recipe
training() {
  case $1 in
    strong | no-se) ;;
    no-nesterov | no-input-norm | no-branches) echo "--$1" ;;
    no-crop) echo "--crop 1" ;;
    no-*) echo "--${1#no-} 0" ;;
    paper) echo "--recipe paper --ema 0" ;; # even if TRAIN sets --ema
    only-joints) echo "--streams joint --no-branches" ;;
  esac
}

# genotype_of ROW: the genotype, for no-se with the identity in place of squeeze-and-excitation
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
