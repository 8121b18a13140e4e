"""A cluster profile (slurm/*.yaml): the resources of one job, and its environment. It loads no torch."""

import itertools
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sia.checks import ask
from sia.cluster.slurm_says import cluster_is_away
from sia.config import Section, read_yaml, validate
from sia.errors import UsageError, UserError
from sia.run.driver import OWN_JOB

Cluster = Literal["local", "slurm", "debug"]
SECONDS_TO_SAVE = 120
SINFO_SECONDS = 20.0
PATIENCE_SECONDS = 24 * 3600.0  # of a detached driver, which nobody would start again
ASK_AGAIN_SECONDS = 15.0
# Flags of sbatch that are not given under `sbatch:`, and what is given instead.
OF_PROFILE = {
    **{key: key for key in ("partition", "account", "qos", "constraint", "nodes")},
    **{"ntasks-per-node": "tasks_per_node", "tasks-per-node": "tasks_per_node", "ntasks": "nodes and tasks_per_node"},
    **{"gpus-per-node": "gpus_per_node", "cpus-per-task": "cpus_per_task"},
    **{"mem": "mem_gb", "mem-gb": "mem_gb", "time": "timeout_min", "timeout-min": "timeout_min"},
    **{"no-requeue": "requeue: false", "setup": "setup", "environment": "environment"},
}
# submitit sets the first ones, and waits for what sbatch prints, which the others change.
SET_BY_US = ("job-name", "output", "error", "open-mode", "signal", "array", "parsable", "quiet", "wait", "test-only")
# Set by Ray, by a Slurm job or srun that the driver may run in, by torch's launchers, or by a detached driver's job.
FOREIGN_PREFIXES = (
    *("RAY_", "TUNE_", "SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_", "PMI_", "PMIX_", "MASTER_", "TORCHELASTIC_"),
    "SIA_DRIVER_",
)
# A rank's place in another job, threads that would go before OMP_NUM_THREADS, and what is a terminal's.
FOREIGN = {
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"),
    *("ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME"),
    "PYTHONIOENCODING",  # of a terminal; logs are in UTF-8
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
}
# On Slurm those of the node, which Slurm sets; on one machine the user's choice.
DEVICES = {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"}
KEPT = {"SLURM_CONF"}


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a variable is text; write it in quotes")
    return str(value) if isinstance(value, int | float) else value


class Profile(Section):
    """What sbatch is asked for; a key that is not given is left to the cluster's defaults."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: Annotated[int, Field(ge=1)] = 1
    tasks_per_node: Annotated[int, Field(ge=1)] = 1
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    cpus_per_task: Annotated[int, Field(ge=1)] = 1
    mem_gb: Annotated[float, Field(ge=0)] | None = Field(None, description="of a node; 0 is all that it has")
    timeout_min: Annotated[int, Field(ge=1)] = 24 * 60
    array_parallelism: Annotated[int, Field(ge=1)] = 64
    setup: list[str] = Field([], description="shell lines before the job, for example module load")
    environment: dict[str, Annotated[str, BeforeValidator(_text)]] = Field({}, description="variables of the job")
    stage_corpus_to: str = Field("", description="the node's own disk, such as $TMPDIR: shards are copied there first")
    runs_per_node: Annotated[int, Field(ge=1)] = Field(1, description="runs of a study that share the job's node")
    runs_per_gpu: Annotated[int, Field(ge=1)] | None = Field(None, description="small runs, of one rank, on each GPU")
    chain_stages: bool = Field(True, description="a job goes on with its run's next stage; false: a job a stage")
    sbatch: dict[str, Any] = Field(
        {}, description="any other flag of sbatch, without its dashes; true for one that takes no value, false: without"
    )

    @field_validator("sbatch")
    @classmethod
    def _only_other_flags(cls, flags: dict[str, Any]) -> dict[str, Any]:
        for flag, value in flags.items():
            if (cure := _cure_of_flag(flag.replace("_", "-"), value)) is not None:
                fault = PydanticCustomError("flag", "{cure}", {"cure": cure})
                raise ValidationError.from_exception_data("sbatch", [{"type": fault, "loc": (flag,), "input": None}])
        return flags

    @model_validator(mode="before")
    @classmethod
    def _by_the_gpu(cls, values: Any) -> Any:
        """As many runs, and ranks, as runs_per_gpu makes on the node's GPUs, where nothing else is asked for."""
        if not isinstance(values, Mapping):
            return values
        each, gpus = values.get("runs_per_gpu"), values.get("gpus_per_node", 0)
        if type(each) is not int or type(gpus) is not int or min(each, gpus) < 1:
            return values
        return {"runs_per_node": each * gpus, "tasks_per_node": each * gpus, **values}

    @model_validator(mode="after")
    def _can_be_shared(self) -> "Profile":
        runs, gpus, each = self.runs_per_node, self.gpus_per_node, self.runs_per_gpu
        if each and not gpus:
            raise ValueError("runs_per_gpu needs gpus_per_node: 1 or more")
        if each and not each * gpus == runs == self.tasks_per_node:
            told = f"runs_per_gpu {each} on gpus_per_node {gpus} makes {each * gpus} runs of one rank a node"
            raise ValueError(f"{told}; leave runs_per_node and tasks_per_node out")
        if runs > 1 and self.nodes > 1:
            raise ValueError("runs_per_node needs nodes: 1; as many such jobs are asked for as the runs need")
        if self.tasks_per_node % runs:
            raise ValueError(f"tasks_per_node {self.tasks_per_node} cannot be shared by {runs} runs (runs_per_node)")
        if gpus % runs and runs % max(1, gpus):
            raise ValueError(f"gpus_per_node {gpus} cannot be shared evenly by {runs} runs (runs_per_node)")
        return self

    @property
    def world_size(self) -> int:
        """Ranks of a run."""
        return self.nodes * self.tasks_per_node // self.runs_per_node

    def of_run(self) -> "Profile":
        """The share of one run where several share a node."""
        return self.model_copy(update={**self._share(1), "runs_per_node": 1, "runs_per_gpu": None})

    def of_pack(self, places: int) -> "Profile":
        """What so many of the node's runs need of it, for a job of one process, which starts them itself."""
        share = self._share(places)
        whole = {"tasks_per_node": 1, "cpus_per_task": self.cpus_per_task * share["tasks_per_node"]}
        return self.model_copy(update={**share, **whole, "runs_per_node": 1, "runs_per_gpu": None})

    def _share(self, runs: int) -> dict[str, Any]:
        """What of the node's is theirs, by key; runs that share a GPU need whole ones all the same."""
        of = self.runs_per_node
        return {
            "tasks_per_node": self.tasks_per_node * runs // of,
            "gpus_per_node": math.ceil(self.gpus_per_node * runs / of),
            "mem_gb": self.mem_gb and self.mem_gb * runs / of,
        }

    def describe(self) -> str:
        devices = (
            f"{self.gpus_per_node} GPU" if self.gpus_per_node else f"{self.cpus_per_task * self.tasks_per_node} CPU"
        )
        where = ", ".join(f"{key} {value}" for key in ("partition", "constraint") if (value := getattr(self, key)))
        shared = f", shared by {self.runs_per_node} runs" if self.runs_per_node > 1 else ""
        return f"{self.nodes} x {self.tasks_per_node} ranks, {devices}/node{shared}" + (f", {where}" if where else "")

    def for_records(self) -> dict[str, Any]:
        """Without the job's variables, which may be keys: others read a run's records."""
        return self.model_dump(mode="json", exclude={"environment"})

    def slurm_parameters(self, job_name: str, overlap: bool = False) -> dict[str, Any]:
        """The parameters of submitit's Slurm executor; overlap: the job starts steps of its own beside its first."""
        named = ("partition", "account", "qos", "constraint")
        parameters: dict[str, Any] = {key: getattr(self, key) for key in named if getattr(self, key) is not None}
        if self.gpus_per_node:
            parameters["gpus_per_node"] = self.gpus_per_node
        if self.mem_gb is not None:
            parameters["mem"] = f"{round(self.mem_gb * 1024)}MB"
        return parameters | {
            "job_name": job_name,
            "time": self.timeout_min,
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks_per_node,
            "cpus_per_task": self.cpus_per_task,
            "array_parallelism": self.array_parallelism,
            "signal_delay_s": min(SECONDS_TO_SAVE, self.timeout_min * 15),
            "setup": self.setup or None,
            # Without it a rank that failed leaves the others waiting until the time limit.
            # From 22.05 to 23.02 srun does not take over sbatch's number of CPUs a task.
            "srun_args": [
                *("--kill-on-bad-exit=1", f"--cpus-per-task={self.cpus_per_task}"),
                *(["--overlap"] if overlap else []),
            ],
            "additional_parameters": self._flags(),
        }

    def _flags(self) -> dict[str, Any]:
        flags = {"requeue": True, **self.sbatch}
        # Slurm's own default may be to requeue, so that leaving the flag out would not do.
        opposite = {"no-requeue": True} if flags["requeue"] is False else {}
        return {flag: value for flag, value in flags.items() if value is not False} | opposite


def _cure_of_flag(flag: str, value: Any) -> str | None:
    """What to do about a flag that may not stand under `sbatch:`; None for one that may."""
    if flag in OF_PROFILE:
        return f"use {OF_PROFILE[flag]} instead"
    if flag in SET_BY_US:
        return "jobs of sia do not work with it; leave it out"
    if value is None or isinstance(value, list | dict):
        return "give it one value as sbatch takes it, or true where it takes none"
    return None


def sbatch_script(profile: Profile, job_name: str, folder: Path, overlap: bool = False) -> str:
    """The script that sbatch is given for a job whose pickle and logs lie in `folder`, without a cluster."""
    from submitit.slurm.slurm import _make_sbatch_string

    # The interpreter and the folder of the real command follow when the job is submitted.
    command = f"python -u -m submitit.core._submit {folder}"
    return _make_sbatch_string(command=command, folder=folder, **profile.slurm_parameters(job_name, overlap))


def clean_environment(environment: dict[str, str], profile: Profile, cluster: Cluster = "local") -> dict[str, str]:
    """The variables of `environment` that a job keeps, its number of threads, and those of the profile."""
    foreign = FOREIGN | (DEVICES if cluster == "slurm" else set())
    kept = {
        name: value
        for name, value in environment.items()
        if name in KEPT or not (name in foreign or name.startswith(FOREIGN_PREFIXES))
    }
    return {**kept, "OMP_NUM_THREADS": str(profile.cpus_per_task), **profile.environment}


def load_profile(path: Path | None) -> Profile:
    """Raises UsageError that names the file and the key."""
    return Profile() if path is None else validate(Profile, read_yaml(path), str(path))


def choose_cluster(wanted: str, instead: str = "local") -> Cluster:
    """`auto` is Slurm where `sinfo` answers, and this machine where there is none. Raises UserError for a Slurm that
    does not answer: a login node is no place to train on because a controller is busy. A detached driver waits for it.

    instead: the command's choice that does without Slurm.
    """
    if wanted in ("local", "debug"):
        return wanted  # type: ignore[return-value]
    deadline = time.monotonic() + (PATIENCE_SECONDS if OWN_JOB in os.environ else 0.0)
    while cluster_is_away((trouble := slurm_trouble()) or "") and time.monotonic() < deadline:
        print(f"waiting for Slurm, which does not answer: {trouble}", file=sys.stderr, flush=True)
        time.sleep(ASK_AGAIN_SECONDS)
    if trouble is None:
        return "slurm"
    if wanted == "auto" and not cluster_is_away(trouble):
        return "local"
    raise no_answer(wanted, trouble, instead)


def no_answer(wanted: str, trouble: str, instead: str = "local") -> UserError:
    return UserError(
        f"--cluster {wanted}: Slurm does not answer ({trouble}); try again later, export the SLURM_CONF of one that "
        f"runs (slurm/devcluster/up starts one on this machine), or use --cluster {instead}"
    )


def slurm_trouble() -> str | None:
    """What keeps `sinfo` from answering, in its words; None where it answers."""
    if shutil.which("sinfo") is None:
        return "sinfo is not installed"
    answer = ask(["sinfo", "-h"], SINFO_SECONDS)
    return None if answer.good else " ".join(answer.errors.split()) or "sinfo says nothing"


def visible_gpus() -> list[int | str]:
    """The GPUs of this machine that the user may take: $CUDA_VISIBLE_DEVICES (numbers, UUIDs or names of MIG
    instances, as CUDA reads it), or all of them.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(range(len(list(Path("/dev").glob("nvidia[0-9]*")))))
    words = [word.strip() for word in chosen.split(",")]
    # CUDA ends the list at the first word that names none, such as -1.
    known = list(itertools.takewhile(lambda word: word.isdigit() or word.startswith(("GPU-", "MIG-")), words))
    if any(word.startswith("MIG-") for word in known):
        return list(known[:1])  # CUDA shows a process one instance, and NCCL joins no two of them
    return [int(word) if word.isdigit() else word for word in known]


def check_local(profile: Profile, source: str) -> None:
    """Raises UsageError for a profile that one machine cannot carry out."""
    if profile.nodes > 1:
        raise UsageError(f"{source}: nodes is {profile.nodes}, but --cluster local has one; set it to 1 or use slurm")
    gpus = len(visible_gpus())
    if profile.gpus_per_node > gpus:
        raise UsageError(f"{source}: gpus_per_node is {profile.gpus_per_node}, but this machine has {gpus}; lower it")
