"""Write a starter grid for a prepared corpus, sized to its captions and to this machine; it runs as it is written.

examples:
  python jobs/new_grid.py birds
  python jobs/new_grid.py corpora/birds --out sweeps/first.yaml --gpus 8
"""

import sys
from pathlib import Path

from sia import command


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("corpus", help="the folder of a prepared corpus, or its name in corpora/")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the grid to write (default: sweeps/CORPUS.yaml)")
    parser.add_argument("--gpus", type=int, metavar="N", help="size it for so many GPUs (default: this machine's)")
    arguments = parser.parse_args()
    from sia.atomic import write_text
    from sia.cluster.profile import visible_gpus
    from sia.errors import UsageError, UserError
    from sia.orphans import usable_cores
    from sia.run.folder import check_study_name
    from sia.sweep.new_grid import new_grid

    given = Path(arguments.corpus)
    folder = given if (given / "corpus.json").exists() or len(given.parts) > 1 else Path("corpora") / given
    out = arguments.out or Path("sweeps") / f"{folder.absolute().name}.yaml"
    check_study_name(out.stem)
    if out.exists():
        raise UserError(f"{out}: is there already; give another with --out, or remove it")
    gpus = len(visible_gpus()) if arguments.gpus is None else arguments.gpus
    if gpus < 0:
        raise UsageError(f"--gpus {gpus}: give 0 or more")
    text, warnings = new_grid(folder, gpus, usable_cores())
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    for line in warnings:
        print(f"warning: {line}" if line[0] != " " else line, file=sys.stderr)
    print(f"{out}: look at it with python jobs/submit.py --grid {out} --dry-run, then submit it without --dry-run")


if __name__ == "__main__":
    command.run(main)
