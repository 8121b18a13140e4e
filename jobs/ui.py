"""MLflow's pages of all studies, or of those that are named: first their addresses, then the server, until a Ctrl-C.

It takes port 5000, or the next one that is free.

examples:
  python jobs/ui.py size-miniature --port 5001
"""

from sia import command


def main() -> int:
    parser = command.parser(__doc__)
    parser.add_argument("study", nargs="*", help="studies; all of them without it")
    parser.add_argument("--port", type=int, help="this port, or none")
    parser.add_argument("--uri", help="the store (default: $MLFLOW_TRACKING_URI, or mlflow.db of the repository)")
    arguments = parser.parse_args()
    from sia.run.folder import studies
    from sia.trackers.mlflow.ui import serve

    return serve(arguments.study or studies(), arguments.uri, arguments.port)


if __name__ == "__main__":
    command.run(main)
