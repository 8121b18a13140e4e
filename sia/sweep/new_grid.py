"""A starter grid for a prepared corpus, sized to its captions and to the machine. It loads no torch."""

from dataclasses import dataclass
from pathlib import Path
from string import Template

from sia.data.manifest import SPLITS
from sia.data.prepared_corpus import PreparedCorpus, check_splits, read_description
from sia.errors import UserError

K = 10  # of the R@K that chooses the best epoch
POOLS_OF_K = 5  # in a pool of fewer times K, a pair that knows nothing finds the right one too often
LARGEST_BATCH, SMALLEST_BATCH = 64, 8
STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 600, 10, 60

GRID = Template("""\
# $name: $captions captions of $images images ($train train, $validation validation, $test test).
# Written by jobs/new_grid.py for $machine. Each key and its default is in sia/config.py, and
# sweeps/README.md tells more.
$warnings
question: How large must the speech branch be to find the right image of $name?
experiment:
  data:
    corpus: $corpus
    short_side: $short_side     # the side that the images were prepared with
    crop_size: $crop_size      # what the image encoder sees of it: a random crop in training, the middle one else
    normalisation: corpus
    standardise_frames: true
    bucket_size: 8
    flip_probability: 0.5   # 0.0 where captions tell left from right, or images hold writing
  model:
    frame_features: $frame_features
    image: {name: densenet, $image}
  optimizer: {learning_rate: $rate, gradient_clip: 5.0}
  training:
    batch_size: $batch_size      # captions a step, over all ranks; each of them is compared with all the others
    train_recall_sample: $sample
  runtime: {num_workers: $workers, keep_every_epochs: 0, image_cache_gb: $cache_gb}

# What varies: every combination is a run.
grid:
  model.gru_layers: [$gru_layers]
  model.latent_size: [$latent_sizes]
# seeds: [0, 1, 2]          # train each so often: without repeats nobody knows whether one is better than another

stages:
  - {epochs: $epochs, schedule: calr}
  - {epochs: $restart, schedule: calr, lr_scale: 0.5$start_from}    # a warm restart at half the rate
# profile: slurm/gpu.yaml   # on Slurm: what a job asks for; without it, the cluster's defaults
""")


@dataclass(frozen=True)
class Size:
    """A pair's size, as lines of the grid."""

    image: str
    gru_layers: str
    latent_sizes: str
    rate: str


SMALL = Size("blocks: [2, 2, 2], growth_rate: 12, initial_features: 24", "2", "64, 32", "3.0e-3")
MIDDLE = Size("blocks: [6, 12, 24, 16]", "3, 2", "512, 256", "3.0e-4")
PAPERS = Size("blocks: [6, 12, 64, 48]", "3, 2", "1024", "2.0e-4")


def new_grid(folder: Path, gpus: int, cores: int) -> tuple[str, list[str]]:
    """The text of a grid for the corpus in `folder`, and what to know before its figures are believed.

    Raises UserError for a corpus that is not there, lacks a split, or has too few captions to train on.
    """
    description = read_description(folder, folder.name)
    corpus = PreparedCorpus.open(folder)
    check_splits(folder, description, "validation")
    captions = description.num_captions["train"]
    pools = {split: len(corpus.image_pool(corpus.split(split))) for split in SPLITS}
    size = SMALL if not gpus or captions < 5000 else MIDDLE if captions < 100_000 else PAPERS
    ranks = gpus or min(2, cores)
    batch_size = _batch_size(folder, captions, ranks)
    epochs = max(FEWEST_EPOCHS, min(MOST_EPOCHS, STEPS * batch_size // captions)) if size is SMALL else 50
    short_side = description.short_side or (256 if gpus else 72)
    warnings = _pool_warnings(pools)
    if not gpus and short_side > 128:
        cure = "prepare them with --image-short-side 72"
        warnings.append(f"Images of {short_side} pixels are slow without a GPU: {cure}.")
    text = GRID.substitute(
        vars(size),
        name=description.name,
        captions=sum(description.num_captions.values()),
        images=description.num_images,
        **{split: description.num_captions[split] for split in SPLITS},
        machine=f"{gpus} GPUs" if gpus else f"{cores} cores without a GPU",
        warnings="".join(f"# {line}\n" for line in warnings).rstrip(),
        corpus=description.name + (f"\n    folder: {folder}" if folder != Path("corpora") / description.name else ""),
        short_side=short_side,
        crop_size=max(8, round(short_side * 7 / 8 / 8) * 8),
        frame_features=description.features["coefficients"],
        batch_size=batch_size,
        sample=min(1000, captions),
        workers=min(4, max(1, cores // ranks - 1)) if gpus else 0,
        cache_gb=min(1.0, -(-pools["train"] * short_side**2 * 4 // 10**8) / 10),
        epochs=epochs,
        restart=max(1, epochs // 5),
        start_from=", start_from: last" if pools["validation"] <= K else "",
    )
    return text, warnings


def _batch_size(folder: Path, captions: int, ranks: int) -> int:
    """Some six batches an epoch at least, of 8 to 64 captions, which the ranks can share."""
    wanted = SMALLEST_BATCH
    while wanted < LARGEST_BATCH and 2 * wanted * 6 <= captions:
        wanted *= 2
    batch_size = max(ranks, wanted - wanted % ranks)
    if captions < batch_size:
        raise UserError(f"{folder}: {captions} training captions, a batch has {batch_size}; prepare a corpus of more")
    return batch_size


def _pool_warnings(pools: dict[str, int]) -> list[str]:
    images = {split: pools[split] for split in ("validation", "test") if pools[split] < POOLS_OF_K * K}
    lines = [
        f"R@{K} on {split} chooses among {count} images: by chance it is {100 * min(1, K / count):.0f} %."
        for split, count in images.items()
    ]
    if pools["validation"] <= K:
        lines += [
            f"No epoch is better than another by R@{K}, so that the first one counts as best: look at R@1 of the last,",
            "  python jobs/evaluate.py RUN --checkpoint last, also with --split train.",
        ]
    return lines
