# The steps that the tables of the paper are made of; read by the other scripts.
#
#   bash benchmarks/tables/NAME.sh CACHE OUT
#
# CACHE is what `skelnas prepare` wrote, OUT a folder that the tables can share. A step that is done
# is not done again and one that was stopped goes on, so the same command is the way back to work.
# From the environment:
#   SEARCH, TRAIN, EVALUATE   more flags of these commands, such as TRAIN="--recipe strong --seed 1"
#   CELLS                     more flags for networks of cells only, such as CELLS="--channels 48"
#   TORCHRUN                  how several GPUs search and train, such as
#                             TORCHRUN="torchrun --nproc-per-node 4 -m skelnas"
#   DRY_RUN=1                 print the commands and do nothing
set -euo pipefail

cache=${1:?the first argument is a cache of skelnas prepare}
out=${2:?the second argument is a folder for the results}
here=$(dirname "${BASH_SOURCE[0]}")

# run COMMAND...: print it and, unless it is a dry run, do it
run() {
  local program=${SKELNAS:-skelnas}
  case $1 in search | train) program=${TORCHRUN:-$program} ;; esac
  { printf '$ skelnas' && printf ' %q' "$@" && echo; } >&2
  [ -n "${DRY_RUN:-}" ] || $program "$@"
}

# search PROTOCOL SPACE: cells, in OUT/PROTOCOL/SPACE/genotype.json
search() {
  local place=$out/$1/$2
  if [ ! -e "$place/genotype.json" ]; then
    run search "$cache" --protocol "$1" --space "$2" --out "$place/search" --resume ${SEARCH:-}
    run derive "$place/search" --out "$place/genotype.json"
  fi
}

# cells PROTOCOL SPACE NUMBER: the network of so many cells, in OUT/PROTOCOL/SPACE/NUMBER-cells
cells() {
  local place=$out/$1/$2
  score "$place/$3-cells" "$1" 224x224 --genotype "$place/genotype.json" --layers "$3" ${CELLS:-}
}

# rival PROTOCOL NAME: a network of other authors, in OUT/PROTOCOL/NAME
rival() {
  score "$out/$1/$2" "$1" "" --model "$2"
}

# score MODEL PROTOCOL SIZE FLAGS...: train a model, by the paper's recipe unless TRAIN or the
# flags name another, and evaluate it, into MODEL.json
score() {
  local model=$1 protocol=$2 size=${3:+--input-size=$3}
  shift 3
  if [ ! -e "$model.json" ]; then
    run train "$cache" ${protocol:+--protocol "$protocol"} --recipe paper ${TRAIN:-} "$@" \
      --out "$model" --resume
    keep "$model.json" evaluate "$cache" "$model" $size --json ${EVALUATE:-}
  fi
}

# keep FILE COMMAND...: what a command prints, whole or not at all
keep() {
  local file=$1
  shift
  if [ -n "${DRY_RUN:-}" ]; then
    run "$@"
  elif [ ! -e "$file" ]; then
    run "$@" > "$file.part"
    mv "$file.part" "$file"
  fi
}

# write_table NAME: OUT/tableNAME.md, and to standard output
write_table() {
  if [ -z "${DRY_RUN:-}" ]; then
    ${PYTHON:-python3} "$here/table.py" "$1" "$out" | tee "$out/table$1.md"
  fi
}
