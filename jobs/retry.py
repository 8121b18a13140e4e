"""Submit the runs of a study that failed, were lost or cancelled again, each as it was submitted before.

examples:
  python jobs/retry.py size-miniature
  python jobs/retry.py size-miniature --only DG3A32
"""

from sia import command


def main() -> int:
    parser = command.parser(__doc__)
    parser.add_argument("study", help="a study as jobs/status.py lists it")
    parser.add_argument("--only", nargs="+", default=[], metavar="RUN", help="these runs; a part of a name is enough")
    parser.add_argument("--max-concurrent", type=int, metavar="N", help="runs at once")
    arguments = parser.parse_args()
    command.check_counts(arguments, "max_concurrent")
    from sia.cluster.launch import default_concurrency
    from sia.operate.retry import retry_launches, retryable
    from sia.sweep.drive import Sweep, submit_sweep

    runs = retryable(arguments.study, arguments.only)
    if not runs:
        print(f"{arguments.study}: no run failed, was lost or cancelled; python jobs/status.py {arguments.study}")
        return 0
    launches = retry_launches(runs)
    print(f"to be submitted again: {', '.join(run.name for run in runs)}")
    at_once = arguments.max_concurrent or max(map(default_concurrency, launches.values()))
    sweep = Sweep(arguments.study, runs, launches, "none", at_once)
    return submit_sweep(sweep, command.console())


if __name__ == "__main__":
    command.run(main)
