# The steps of the paper's tables; sourced by the other scripts.
#
#   bash benchmarks/tables/NAME.sh CACHE OUT
#
# CACHE is a cache of `skelnas prepare`; OUT is a folder for results, which the tables can share.
# Finished steps are skipped and stopped ones resume, so run the same command again to continue.
# From the environment:
#   SEARCH, TRAIN, EVALUATE   extra flags for these commands, such as TRAIN="--recipe strong --seed 1"
#   CELLS                     extra flags for networks of cells only, such as CELLS="--channels 48"
#   TORCHRUN                  launcher to search and train on several GPUs, such as
#                             TORCHRUN="torchrun --nproc-per-node 4 -m skelnas"
#   DRY_RUN=1                 print the commands without running them
set -euo pipefail

cache=${1:?the first argument is a cache of skelnas prepare}
out=${2:?the second argument is a folder for the results}
here=$(dirname "${BASH_SOURCE[0]}")

# run COMMAND...: print a command and, unless this is a dry run, run it
run() {
  local program=${SKELNAS:-skelnas}
  case $1 in search | train) program=${TORCHRUN:-$program} ;; esac
  { printf '$ skelnas' && printf ' %q' "$@" && echo; } >&2
  [ -n "${DRY_RUN:-}" ] || $program "$@"
}

# search PROTOCOL SPACE: search cells, into OUT/PROTOCOL/SPACE/genotype.json
search() {
  local folder=$out/$1/$2
  if [ ! -e "$folder/genotype.json" ]; then
    run search "$cache" --protocol "$1" --space "$2" --out "$folder/search" --resume ${SEARCH:-} >&2
    run derive "$folder/search" --out "$folder/genotype.json"
  fi
}

# cells PROTOCOL SPACE NUMBER: score a network of NUMBER cells, in OUT/PROTOCOL/SPACE/NUMBER-cells
cells() {
  local folder=$out/$1/$2
  score "$folder/$3-cells" "$1" 224x224 --genotype "$folder/genotype.json" --layers "$3" ${CELLS:-}
}

# baseline PROTOCOL NAME: score a network of other authors, in OUT/PROTOCOL/NAME
baseline() {
  score "$out/$1/$2" "$1" "" --model "$2"
}

# score MODEL PROTOCOL SIZE FLAGS...: train a model, by the paper's recipe unless TRAIN or the
# flags name another, and evaluate it, into MODEL.json
score() {
  local model=$1 protocol=$2 size=${3:+--input-size=$3}
  shift 3
  if [ ! -e "$model.json" ]; then
    run train "$cache" ${protocol:+--protocol "$protocol"} --recipe paper ${TRAIN:-} "$@" \
      --out "$model" --resume >&2
    save "$model.json" evaluate "$cache" "$model" $size --json ${EVALUATE:-}
  fi
}

# save FILE COMMAND...: write the output of a command to a file, once it is complete
save() {
  local file=$1
  shift
  if [ -n "${DRY_RUN:-}" ]; then
    run "$@"
  elif [ ! -e "$file" ]; then
    run "$@" > "$file.part"
    mv "$file.part" "$file"
  fi
}

# write_table NAME: write OUT/tableNAME.md, and print it
write_table() {
  if [ -z "${DRY_RUN:-}" ]; then
    ${PYTHON:-python3} "$here/table.py" "$1" "$out" | tee "$out/table$1.md"
  fi
}
