"""Print the log of a run's latest job, or of a study's detached driver.

examples:
  python jobs/logs.py DG3A32 -f
  python jobs/logs.py size-miniature --stderr
"""

import contextlib
import functools
import sys

from sia import command


def main() -> int:
    parser = command.parser(__doc__)
    parser.add_argument("name", metavar="RUN|STUDY", help="a run, or a part of its name; a study: its driver's job")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run is finished, or Ctrl-C")
    parser.add_argument("--rank", type=int, metavar="N", help="of this rank (default: the one that failed, else 0)")
    parser.add_argument("--stage", type=int, metavar="N", help="of this stage (default: the latest)")
    parser.add_argument("--stderr", action="store_true", help="standard error alone")
    arguments = parser.parse_args()
    from sia.operate.logs import Follower, failed_rank, log_files, logs_of_driver, logs_of_run, silence
    from sia.run.folder import find_run, is_study

    rank: int | None = arguments.rank
    if is_study(arguments.name):
        source = logs_of_driver(arguments.name)
    else:
        run = find_run(arguments.name)
        source = logs_of_run(run, arguments.stage)
        rank = failed_rank(run, arguments.stage) if rank is None else rank
    write = functools.partial(print, end="", flush=True)
    follower = Follower(source, rank or 0, arguments.stderr)
    if arguments.follow:
        with contextlib.suppress(KeyboardInterrupt):
            follower.follow(write)
        return 0
    shown = list(follower.news())
    for text in shown:
        write(text)
    job = source.job()
    if not shown and job is not None:
        files = " or ".join(map(str, log_files(job, rank or 0, arguments.stderr)))
        print(silence(job, files), file=sys.stderr)
    return 0


if __name__ == "__main__":
    command.run(main)
