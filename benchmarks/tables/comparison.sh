#!/usr/bin/env bash
# A searched genotype against random ones, the released ones and the paper's baselines, all trained
# alike with several seeds each.
#
#   bash benchmarks/tables/comparison.sh CACHE OUT GENOTYPE [PROTOCOL]
#
# Also from the environment:
#   ROWS    networks, such as ROWS="searched random" (default: all)
#   SEEDS   seeds of the trainings and of the random genotypes (default: SEEDS="0 1 2")
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
genotype=${3:?the third argument is a genotype, a file or a name}
protocol=${4:-}

# network ROW SEED: the flags of `skelnas train` that choose the network
network() {
  case $1 in
    searched) echo "--genotype" "$genotype" ${CELLS:-} ;;
    random) echo "--genotype random:$2" ${CELLS:-} ;;
    hcn) echo "--model hcn --lr 0.01" ;; # it has no normalisation and does not learn at 0.1
    st-gcn | temporal-conv) echo "--model $1" ;;
    *) echo "--genotype $1" ${CELLS:-} ;;
  esac
}

for seed in ${SEEDS:-0 1 2}; do
  for row in ${ROWS:-searched random ntu_cs112se30 ntu_cv112se30 hcn st-gcn temporal-conv}; do
    score "$out/comparison/$row-$seed" "$protocol" "" $(network "$row" "$seed") --seed "$seed"
  done
done
write_table comparison
