#!/usr/bin/env bash
# A batch in shares, as an array of Slurm: docs/batch.md, "Shares". The folders have to be seen by all nodes.
#
#   dulian batch run /shared/photos --output /shared/results --list-only
#   sbatch --array=0-7 deploy/slurm/batch.sh /shared/results
#   dulian batch merge /shared/results --output /shared/results/records.parquet
#
#SBATCH --job-name=dulian-batch
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=24:00:00
# Ninety seconds before time is up it ends in order, and the same sbatch goes on; what is preempted queues again by itself.
#SBATCH --signal=TERM@90
#SBATCH --requeue
set -euo pipefail

destination=${1:?usage: sbatch --array=0-7 deploy/slurm/batch.sh DEST}

# Slurm sends signals to steps, which srun makes of it. Shares are counted from 0: --array=0-7, not 1-8.
exec srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-4}" \
  "${DULIAN:-dulian}" batch run --output "$destination" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
