"""Do verdicts survive other base seeds, other precision and more stimuli? A run of a profile each, hours in all.

    python tests/benchmarks/stability.py [PROFILE] [--out DIR]

A base seed draws other images, other networks' random numbers and other tasks; the dense network stays. Prints the
verdict and estimate of every claim, how far a dense network retrained alike is from the dense one, and how far the
correlation of Q1 moves when the stimuli double. What was computed is kept in DIR/runs; run it again to go on.
"""

import argparse

import pandas as pd

from prunelens.analysis import verdicts
from prunelens.analysis.selection import dense, pick
from prunelens.study import Study

SEEDS = range(4)


def runs(stimuli: int) -> dict[str, list[str]]:
    """By name, the overrides of each run."""
    found = {f"seed {seed}": [f"seed={seed}"] for seed in SEEDS}
    found["bfloat16"] = ["retraining.precision=bfloat16"]
    return found | {"stimuli doubled": [f"data.stimulus_images={2 * stimuli}"]}


def judged(study: Study) -> pd.DataFrame:
    """The claims of a run, by name."""
    asked = study.profile.claims
    return verdicts.judge(study.tables(), margins=asked.margins).set_index("claim")


def dense_difference(study: Study) -> pd.Series:
    """Top-1 of the dense networks retrained alike minus the dense one's, a value per seed."""
    accuracy = study.accuracy()
    retrained = pick(accuracy, method="dense", schedule="one_shot")
    return retrained.set_index("seed").top1 - dense(accuracy).top1.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", nargs="?", default="quick")
    parser.add_argument("--out", default="", help="where runs are kept")
    asked = parser.parse_args()
    stimuli = Study(asked.profile).profile.data.stimulus_images
    found = {}
    for name, overrides in runs(stimuli).items():
        study = Study(asked.profile, overrides, out=asked.out)
        found[name] = judged(study)
        print(f"\n{name}: dense, retrained minus dense, points:", (100 * dense_difference(study)).round(2).tolist())
        print(found[name][["verdict", "estimate"]].to_string(), flush=True)
    table = pd.DataFrame({name: claims.verdict for name, claims in found.items()})
    decided = table.apply(lambda row: set(row) - {verdicts.UNDECIDED, verdicts.UNTESTED}, axis=1)
    print("\n", table.to_string())
    print(f"\n{(decided.map(len) <= 1).sum()} of {len(table)} claims: no two runs decide differently.")
    print(
        f"{(table[[f'seed {s}' for s in SEEDS]] != verdicts.UNDECIDED).sum().to_dict()} claims decided, by base seed."
    )
    q1 = {name: claims.value["Q1"] for name, claims in found.items()}
    print(f"Q1's correlation moves by {abs(q1['stimuli doubled'] - q1['seed 0']):.3f} when the stimuli double.")


if __name__ == "__main__":
    main()
