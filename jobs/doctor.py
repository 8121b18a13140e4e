"""Say what keeps a study from running here: Slurm, the runs folder, the tracker, names, packages, GPUs.

Each check is ok, a warning or a problem, with its cure. The exit status is 1 if there is a problem.

examples:
  python jobs/doctor.py --profile slurm/gpu.yaml
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from sia import command


def main() -> int:
    parser = command.parser(__doc__)
    parser.add_argument("--profile", type=Path, help="resources of a job (slurm/NAME.yaml): would Slurm take it?")
    parser.add_argument("--json", action="store_true", help="a list of findings for programs")
    arguments = parser.parse_args()
    from sia.cluster.profile import load_profile
    from sia.doctor.diagnose import diagnose, findings_table, line_of
    from sia.progress import waiting
    from sia.run.folder import runs_root
    from sia.trackers.tracker import tracker_of

    profile = load_profile(arguments.profile)
    source = str(arguments.profile or "no profile (the cluster's defaults)")
    findings = []
    with waiting("looking at Slurm, folders, the tracker and torch", quiet=arguments.json) as tell:
        for one in diagnose(profile, source, runs_root(), tracker_of()):
            findings.append(one)
            tell(f"{one.check}: {one.level}")
    if arguments.json:
        print(json.dumps([asdict(one) for one in findings], indent=1, ensure_ascii=False))
    elif sys.stdout.isatty():
        command.console().print(findings_table(findings))
    else:
        print("\n".join(line_of(one) for one in findings))
    return int(any(one.level == "problem" for one in findings))


if __name__ == "__main__":
    command.run(main)
