"""What a pair costs, as ratios of ours to the straightforward way, run in turn in one process.

A part is a module here with CASES: names -> a function that takes a number of turns and gives a Comparison. Its line in
PARTS makes it one. The plain side of a part stands beside it, correct and never slowed on purpose. `plan` alone
compares nothing: it tells what a grid would cost.
"""

PARTS = {
    "step": "a training step, against packed nn.GRU, float32, random batches padded to the longest",
    "curves": "the miniature's pair learnt in float32 and in bf16, a turn a seed: loss and R@10 by epoch",
    "checkpoint": "what a save of the largest pair takes of training, against its write with fsync",
    "loading": "training batches, against one .npy and one .png a caption",
    "preparing": "a corpus made ready, against decoding, MFCC and image work alone",
    "recall": "recall of N captions among N images, against the float32 product alone, and against sorting",
    "trial": "a study of tiny runs, with Tune and without: what a trial costs beside its training",
    "commands": "what a person waits for: help, a dry run of 1,000 points, status of 1,000 runs, a report of 200",
    "scale": "what 1, 2, 4 and 8 times the work costs, and the exponent: open, shuffle, plan, status, mirror, report; "
    "and mirror-200, a large study in the tracker",
    "plan": "what each pair of --grid would cost on 1, 8 and 64 ranks, by steps measured now or by its rehearsal",
}
