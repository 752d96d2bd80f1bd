"""Jobs in tasks: each exactly once, each waiting for what it needs and for nothing else."""

import pytest
from conftest import tiny

from simclic import Finetune, Linear, Run
from simclic.experiment import Job
from simclic.schedule.profile import parse_profile
from simclic.schedule.task_arrays import Array, Prices, pack_arrays

pytest.importorskip("submitit", reason="no submitit here, which knows the keys of a profile")

PROTOCOLS = (Linear(), Finetune())
LONG = Run(dataset="food", perturbation="noise")


def packed(tmp_path, encoders, results, queued=(), largest=1001, **values):
    profile = parse_profile("p", {"timeout_min": 60, "pack": {"least_min": 10, "images_per_second": 600}, **values})
    return pack_arrays(encoders, results, dict(queued), profile, Prices(tmp_path, profile), largest)


def jobs(made):
    return [job.name for array in made for task in array.tasks for job in task]


def runs(count, **fields):
    return [Job(tiny(seed=seed, **fields)) for seed in range(count)]


@pytest.mark.parametrize("largest", [1001, 11, 1])
def test_every_job_once_and_behind_its_own_encoder(tmp_path, largest):
    new, there, elsewhere = runs(40), runs(30, perturbation="dropout"), runs(7, perturbation="history")
    results = [Job(job.run, p) for job in (*new, *there, *elsewhere) for p in PROTOCOLS]
    queued = {job: f"77_{i % 3}" for i, job in enumerate(elsewhere)}
    made = packed(tmp_path, new, results, queued, largest, slurm_array_parallelism=8)
    wanted = [job.name for job in (*new, *results)]
    assert sorted(jobs(made)) == sorted(wanted)
    assert all(len(array.tasks) <= largest for array in made)
    for i, array in enumerate(made):
        for k, task in enumerate(array.tasks):
            inside = {job.encoder for job in task}
            if isinstance(array.after, Array):
                assert any(array.after is earlier for earlier in made[:i])
                assert len(array.after.tasks) == len(array.tasks)
                assert inside <= set(array.after.tasks[k])
            elif array.after:
                assert {queued[job] for job in inside} == {array.after}
            elif array.stage != "pretrain":
                assert inside <= set(there)


def test_short_jobs_share_a_task_and_long_ones_do_not(tmp_path):
    (short,) = packed(tmp_path, runs(50), [])
    assert len(short.tasks) == 1
    (long,) = packed(tmp_path, [Job(Run(dataset="food", perturbation=g)) for g in ("noise", "dropout", "history")], [])
    assert [len(task) for task in long.tasks] == [1, 1, 1]


def test_tasks_fill_the_least_time_and_no_more_than_the_profile_gives(tmp_path):
    results = [Job(job.run, Finetune(steps=18)) for job in runs(400, image_size=224)]
    for least, at_once in ((5, 256), (10, 256), (10, 2)):
        made = packed(tmp_path, [], results, slurm_array_parallelism=at_once, pack={"least_min": least, "images_per_second": 60})
        profile = parse_profile("p", {"pack": {"images_per_second": 60}})
        prices = Prices(tmp_path, profile)
        minutes = [sum(prices.price_minutes(job) for job in task) for array in made for task in array.tasks]
        assert max(minutes) <= 0.8 * 60
        if at_once == 256:
            assert 0.7 * least <= min(minutes) <= max(minutes) <= 1.3 * least
        else:
            assert len(minutes) > at_once  # the profile's time asks for more tasks than may run at once


def test_a_task_of_many_cores_takes_more(tmp_path):
    results = [Job(job.run, Finetune(steps=18)) for job in runs(400, image_size=224)]
    one, eight = (
        packed(tmp_path, [], results, cpus_per_task=n, pack={"least_min": 10, "images_per_second": 60})[0] for n in (1, 8)
    )
    assert len(one.tasks) > 4 * len(eight.tasks)


def test_finished_runs_tell_better_than_the_profile(tmp_path):
    from simclic.files import write_json
    from simclic.store.run_folder import RunFolder

    done, prices = tiny(), Prices(tmp_path, parse_profile("p", {}))
    guess = prices.price_minutes(Job(done))
    folder = RunFolder(tmp_path, done).create_folder("d").path
    write_json(folder / "pretrain.json", {"seconds": 600.0, "device": "cpu"})
    prices.learn_from_runs([Job(done)])
    assert guess < 1
    assert prices.price_minutes(Job(tiny(seed=1))) == pytest.approx(10, abs=0.1)
