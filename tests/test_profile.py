"""Profiles: submitit's keys unchanged, and one line for every mistake."""

import re

import pytest
from conftest import ROOT

from simclic import InputError
from simclic.schedule import profile

pytest.importorskip("submitit", reason="no submitit here, which knows the keys of a profile")


def read(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return profile.read_profile(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('slurm_partion = "gpu"', "'slurm_partion' is not a key of submitit; did you mean 'slurm_partition'?"),
        ("[pretrain]\nmem_bg = 8", "'mem_bg' is not a key of submitit; did you mean 'mem_gb'?"),
        ("[pretran]\nmem_gb = 8", "'pretran' is not a section; did you mean 'pretrain'?"),
        ("[how]\nminuts = 8", "'minuts' is not a key of [how]; did you mean 'minutes'?"),
        ("[pack]\nleast = 8", "'least' is not a key of [pack]; did you mean 'least_min'?"),
        ("[how]\nper_gpu = 0", "per_gpu=0 is out of range: 1 or more"),
        ("[how]\ncompile = 1", "compile=1 is not true or false"),
        ("[pack]\nleast_min = -1", "least_min=-1 is out of range: must be more than 0"),
        ('timeout_min = "60"', "timeout_min='60' is not a whole number"),
        ('slurm_time = "24:00:00"', "'slurm_time' is not a key that a profile may set"),
        ('slurm_array_parallelism = "32"', "slurm_array_parallelism='32' is not a whole number"),
        ("how = 3", "how=3 is not a section; write [how] and its keys below"),
        ("timeout_min = 0", "timeout_min=0 is out of range: 1 or more"),
        ("mem_gb = true", "mem_gb=True is not a number"),
        ('slurm_setup = "module load cuda"', "slurm_setup='module load cuda' is not a list"),
        ('slurm_dependency = "afterok:1"', "'slurm_dependency' is not a key that a profile may set"),
        ("tasks_per_node = 2", "a job of [linear] is one task; write nodes and tasks_per_node below [pretrain]"),
        ("[pretrain]\ntasks_per_node = 2\n[how]\nranks = 3", "ranks=3 cannot be shared by 2 tasks (nodes x tasks_per_node)"),
        (
            "gpus_per_node = 2\n[pretrain]\nnodes = 2\n[how]\nranks = 8",
            "ranks=8 is more than the 4 that nodes=2",
        ),
        ("gpus_per_node = 2\n[how]\nranks = 4", "ranks=4 is more than the 2 that nodes=1 and gpus_per_node=2 give; ask for more"),
        ("[how]\nranks = 0", "ranks=0 is out of range: 1 or more"),
        (
            "[how]\nranks = 2\ncompile = true",
            "compile=True with ranks=2: what several processes compute together",
        ),
        ("[how]\nranks = 2\nper_gpu = 2", "per_gpu=2 with ranks=2: each rank has a GPU of its own; set one of them to 1"),
        ("slurm_use_srun = false", "'slurm_use_srun' is not a key that a profile may set"),
        ('slurm_additional_parameters = {array = "0-3"}', "slurm_additional_parameters: 'array' is set by simclic; remove it"),
        ("slurm_additional_parameters = {job_name = 3}", "slurm_additional_parameters: 'job-name' is set by simclic; remove it"),
        ("slurm_cpus_per_task = 2", "'slurm_cpus_per_task' is not a key that a profile may set; did you mean 'cpus_per_task'?"),
        ('slurm_setup = ["#SBATCH --gres=gpu:1"]', "write its option into slurm_additional_parameters"),
        ('cluster = "pbs"', "cluster='pbs' is not one of slurm, local"),
        ('cluster = "local"\nmem_gb = 3', "'mem_gb' has no effect on local processes"),
        ("mem_gb = 3\nmem_gb = 4", "Cannot overwrite a value"),
    ],
)
def test_a_mistake_in_a_profile_is_one_line(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message)) as told:
        read(tmp_path, text)
    assert str(told.value).startswith(f"{tmp_path / 'mine.toml'}: ")
    assert "\n" not in str(told.value)


def test_a_profile_that_is_not_there():
    with pytest.raises(InputError, match=re.escape("gppu.toml: no such profile; did you mean")):
        profile.read_profile(ROOT / "slurm/gppu.toml")


@pytest.mark.parametrize("path", sorted(ROOT.glob("slurm/**/*.toml")), ids=lambda p: p.stem)
def test_the_profiles_that_come_with_it(path, tmp_path):
    assert profile.read_profile(path)
    text = path.read_text()
    spoken = re.sub(r"^# (slurm_\w+ = )", r"\1", text, flags=re.MULTILINE)  # what stands there as a comment is right, too
    assert spoken != text or path.stem in ("local", "profile")
    read(tmp_path, spoken)


def test_a_section_adds_to_what_holds_for_every_stage(tmp_path):
    found = read(tmp_path, 'slurm_partition = "a"\ntimeout_min = 60\n[linear]\nslurm_partition = "b"\ncpus_per_task = 4')
    assert found.stages["pretrain"] == {"slurm_partition": "a", "timeout_min": 60}
    assert found.stages["linear"] == {"slurm_partition": "b", "timeout_min": 60, "cpus_per_task": 4}
    assert (found.time_limit("finetune"), found.task_width("pretrain"), found.task_width("linear")) == (60, 1, 4)


# As Slurm 22.05 gave them to a job on a node with such GPUs.
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("gpus_per_node = 2", 2),
        ("slurm_gpus_per_node = 2", 2),
        ('slurm_gpus_per_node = "a100:2"', 2),
        ("slurm_gpus_per_task = 3", 3),
        ("slurm_num_gpus = 2", 2),
        ('slurm_gres = "gpu"', 1),
        ('slurm_gres = "gpu:2"', 2),
        ('slurm_gres = "gpu:a100"', 1),
        ('slurm_gres = "gpu:a100:2"', 2),
        ('slurm_gres = "gpu:2080ti:1"', 1),
        ('slurm_gres = "gpu:3g.20gb:1"', 1),
        ('slurm_gres = "gpu:1k:1"', 1),
        ('slurm_gres = "gpu:2k"', 2048),
        ('slurm_gres = "gpu:0"', 0),
        ('slurm_gres = "none"', 0),
        ('slurm_gres = "gres:gpu:2"', 2),
        ('slurm_gres = "gpu:a100:1,gpu:v100:1"', 2),
        ('slurm_gres = "gpu:a100:1"\nslurm_gpus_per_node = "v100:1"', 2),
        ('slurm_gres = "gpu:1"\ngpus_per_node = 1', 1),
        ('slurm_gres = "gpu_mem:4000,tmp:20G"', 0),
        ('slurm_gres = "shard:4"', 1),
        ('slurm_gres = "mps:50"', 1),
        ("slurm_additional_parameters = {gpus = 1}", 1),
        ('slurm_additional_parameters = {gpus = "volta:3,kepler:1"}', 4),
        ('slurm_additional_parameters = {gres = "gpu:a100:2"}', 2),
        ("slurm_additional_parameters = {gpus-per-node = 2}", 2),
        ("slurm_additional_parameters = {gpus_per_task = 2}", 2),
        ('slurm_additional_parameters = {tres-per-task = "cpu=8,gres/gpu:a100=2"}', 2),
        ('slurm_additional_parameters = {gpu-bind = "none", gres-flags = "enforce-binding"}', 0),
    ],
)
def test_gpus_are_counted_as_slurm_counts_them(tmp_path, text, count):
    asked = read(tmp_path, f"cpus_per_task = 8\n{text}")
    assert (asked.gpus("linear"), asked.task_width("linear")) == (count, count or 8)
    assert profile.price_target(asked).has_gpus == bool(count)


@pytest.mark.parametrize(
    "text",
    [
        *(
            f'slurm_gres = "{word}"'
            for word in ("gpu:2080ti", "gpu(S:0-1)", "gpu:a100:2(S:0-1)", "gpu:", "gpu::2", "gpu:a100:two")
        ),
        *(f'slurm_gres = "{word}"' for word in ("gpu:-1", "gpu=2", "gpu: 2", "gpu:1.5", "gpu,,gpu", "", "gpu:a100:1,gpu:1")),
        "slurm_gpus_per_task = -1",
        "slurm_gpus_per_task = true",
        'gpus_per_node = 1\nslurm_gres = "gpu:a100:1"',
        'gpus_per_node = 0\nslurm_gres = "gpu:1"',
        "slurm_additional_parameters = {gpus-per-socket = 1, sockets-per-node = 2}",
        "slurm_additional_parameters = {gpus = 1.5}",
    ],
)
def test_gpus_whose_number_is_not_certain_are_refused(tmp_path, text):
    with pytest.raises(InputError, match=r"(none of Slurm's|does not say how many|give the number once|ask for them once)"):
        read(tmp_path, text)
